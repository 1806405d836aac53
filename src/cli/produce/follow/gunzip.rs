//! Unpacks gzip files.
//!
//! A packed file is unpacked whole into a temporary file, which is read like any other: so places in
//! it can be found again, and the packed copy of a log that was shipped is recognised by its content.

use std::{
    fs::File,
    io::{self, BufReader, Seek as _},
    path::Path,
};

use flate2::read::MultiGzDecoder;

/// The unpacked content of a file; needs as much room in the folder for temporary files.
pub(super) fn unpack(mut file: &File, path: &Path) -> io::Result<File> {
    file.rewind()?;
    // That the folder for temporary files is missing does not say that this file is.
    let mut unpacked = tempfile::tempfile().map_err(|error| {
        io::Error::other(format!("unpack {}: make a temporary file: {error}", path.display()))
    })?;
    let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(256 * 1024, file));
    io::copy(&mut decoder, &mut unpacked).map_err(|error| {
        let text = format!("unpack {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    })?;
    Ok(unpacked)
}
