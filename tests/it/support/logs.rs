//! Log files to ship.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

/// Writes a log of so many lines, of various lengths, each with its program and number.
pub fn write_log_file(path: &Path, program: &str, lines: usize) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for number in 0..lines {
        let mixed = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let padding = "x".repeat((mixed % 90) as usize);
        writeln!(
            file,
            "Nov 24 12:{:02}:{:02} host {program}[{}]: line {number} id={mixed:016x} {padding}",
            number / 60 % 60,
            number % 60,
            1000 + number % 7,
        )
        .unwrap();
    }
    file.flush().unwrap();
}
