//! Names of rotated files.

use std::{ffi::OsStr, path::Path};

/// What a rotation has added to the name of a log: a separator and at least one digit at first.
pub(super) fn rotation_suffix<'a>(path: &'a Path, log: &OsStr) -> Option<&'a [u8]> {
    let added = path.file_name()?.as_encoded_bytes().strip_prefix(log.as_encoded_bytes())?;
    match added {
        [b'.' | b'-' | b'_', digit, ..] if digit.is_ascii_digit() => Some(added),
        _ => None,
    }
}

/// The number of a rotation, such as 3 for `.3`; dates are longer.
pub(super) fn rotation_number(suffix: &[u8]) -> Option<u32> {
    let number = std::str::from_utf8(suffix.get(1..)?).ok()?;
    number.parse().ok().filter(|_| number.len() <= 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_recognised_by_their_names() {
        for (name, number) in [
            ("app.log.1", Some(Some(1))),
            ("app.log.12", Some(Some(12))),
            ("app.log-20260101", Some(None)),
            ("app.log_2026-01-01", Some(None)),
            ("app.log", None),
            ("app.log.state", None),
            ("app.log2", None),
            ("other.log.1", None),
        ] {
            let path = Path::new("/var/log").join(name);
            let found = rotation_suffix(&path, OsStr::new("app.log")).map(rotation_number);
            assert_eq!(found, number, "{name}");
        }
    }
}
