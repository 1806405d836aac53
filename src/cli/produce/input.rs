//! Opens the inputs, and reads lines from them.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::fd::AsFd as _,
    path::PathBuf,
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    super::{
        failure::Failure,
        lines::{Line, LinePiece, Lines},
    },
    identity::{self, FINGERPRINT_BYTES, Inode, Position},
};

const READ_BYTES: usize = 256 * 1024;

/// An input of the command line, opened.
pub(super) struct Input {
    pub(super) name: String,
    /// The inode of a file or pipe; `None` for a device, which may be an input and an output.
    pub(super) inode: Option<Inode>,
    kind: Kind,
}

enum Kind {
    File(RegularFile),
    /// Standard input, a pipe or a device: it can be read only once, from its current position.
    Stream(Box<dyn AsyncRead + Unpin + Send>),
}

/// A file, in which a position can be stored and found again.
pub(super) struct RegularFile {
    pub(super) file: File,
    pub(super) inode: Inode,
    /// Its canonical path.
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// Opens all inputs.
pub(super) async fn open_all(files: &[OsString]) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        inputs.push(match file.as_os_str() == OsStr::new("-") {
            true => {
                let kind = Kind::Stream(Box::new(tokio::io::stdin()));
                Input { name, inode: stdin_inode(), kind }
            }
            false => open(file, name).await?,
        });
    }
    Ok(inputs)
}

/// The inode of standard input, which may be a file as well.
fn stdin_inode() -> Option<Inode> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
    Inode::of_data(&File::from(stdin).metadata().ok()?)
}

async fn open(path: &OsStr, name: String) -> Result<Input, Failure> {
    let failed = |error| Failure::refused(format!("open {name}: {error}"));
    let opened = tokio::fs::File::open(path).await.map_err(failed)?;
    let metadata = opened.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::refused(format!("open {name}: it is a folder")));
    }
    if !metadata.is_file() {
        let (inode, kind) = (Inode::of_data(&metadata), Kind::Stream(Box::new(opened)));
        return Ok(Input { name, inode, kind });
    }
    let file = RegularFile {
        file: opened.into_std().await,
        inode: Inode::from(&metadata),
        path: std::fs::canonicalize(path).map_err(failed)?,
        size: metadata.len(),
    };
    Ok(Input { name, inode: Some(file.inode), kind: Kind::File(file) })
}

impl Input {
    /// The file, if the input is one.
    pub(super) fn file(&self) -> Option<&RegularFile> {
        match &self.kind {
            Kind::File(file) => Some(file),
            Kind::Stream(_) => None,
        }
    }

    /// The same file for another reader, to be used before or after this one but not at the same
    /// time; `None` for a stream.
    pub(super) fn reopened(&self) -> io::Result<Option<Self>> {
        let Kind::File(RegularFile { file, inode, path, size }) = &self.kind else {
            return Ok(None);
        };
        let (file, path) = (file.try_clone()?, path.clone());
        let kind = Kind::File(RegularFile { file, inode: *inode, path, size: *size });
        Ok(Some(Self { name: self.name.clone(), inode: self.inode, kind }))
    }

    /// The lines of a file from a position on, or of a stream from its current position.
    pub(super) fn read_from(self, at: &Position, limit: usize) -> Result<Source, Failure> {
        let Self { name, kind, .. } = self;
        let mut source = Source {
            is_file: false,
            bytes: None,
            reader: Box::new(tokio::io::empty()),
            origin: None,
            lines: Lines::starting_at(0, 0, limit),
            head: Vec::new(),
            is_inside_line: false,
            name,
        };
        match kind {
            Kind::Stream(reader) => source.reader = reader,
            Kind::File(file) => source
                .seek(file, at, limit)
                .map_err(|error| Failure::refused(format!("read {}: {error}", source.name)))?,
        }
        Ok(source)
    }
}

/// The lines of an input.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) is_file: bool,
    /// The number of bytes to read, if it is known.
    pub(super) bytes: Option<u64>,
    reader: Box<dyn AsyncRead + Unpin + Send>,
    /// The file, if it is one.
    origin: Option<FileOrigin>,
    lines: Lines,
    /// The first bytes of the file, at most [`FINGERPRINT_BYTES`].
    head: Vec<u8>,
    /// Whether the first line is the rest of a line that was shipped unfinished.
    is_inside_line: bool,
}

/// Which file is read.
#[derive(Clone)]
struct FileOrigin {
    path: PathBuf,
    inode: Inode,
}

impl Source {
    fn seek(&mut self, file: RegularFile, at: &Position, limit: usize) -> io::Result<()> {
        let RegularFile { mut file, inode, path, size } = file;
        self.origin = Some(FileOrigin { path, inode });
        self.is_file = true;
        self.bytes = Some(size.saturating_sub(at.offset));
        self.head = identity::read_head(&file, at.offset)?;
        self.is_inside_line = identity::is_inside_line(&file, at.offset)?;
        file.seek(SeekFrom::Start(at.offset))?;
        // The rest of a line has the number of that line.
        let number = at.lines.saturating_sub(u64::from(self.is_inside_line));
        self.lines = Lines::starting_at(at.offset, number, limit);
        self.reader = Box::new(tokio::fs::File::from_std(file));
        Ok(())
    }

    /// Reads a file again from a line on; returns false for a stream, or if the path is another
    /// file now.
    pub(super) fn go_back(&mut self, start: u64, number: u64, limit: usize) -> io::Result<bool> {
        let Some(FileOrigin { path, inode }) = self.origin.clone() else { return Ok(false) };
        // Opened again, as a read of the old file may still be in progress and would move its
        // position.
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        if Inode::from(&metadata) != inode {
            return Ok(false);
        }
        let is_inside_line = identity::is_inside_line(&file, start)?;
        let lines = number - 1 + u64::from(is_inside_line);
        let at = Position { offset: start, lines, last_line: None };
        let size = metadata.len();
        self.seek(RegularFile { file, inode, path, size }, &at, limit)?;
        Ok(true)
    }

    /// Reads more input; returns the number of bytes, 0 at the end.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        let buffer = self.lines.buffer();
        buffer.reserve(READ_BYTES);
        let before = buffer.len();
        let read = self.reader.read_buf(buffer).await?;
        if self.is_file && self.head.len() < FINGERPRINT_BYTES {
            let more = &buffer[before..];
            let missing = FINGERPRINT_BYTES - self.head.len();
            self.head.extend_from_slice(&more[..more.len().min(missing)]);
        }
        Ok(read)
    }

    /// The next piece of what has been read, if there is one.
    pub(super) fn next_piece(&mut self) -> Option<LinePiece> {
        self.lines.next_piece()
    }

    /// The last line, if it has no line end.
    pub(super) fn last_line(&mut self) -> Option<Line> {
        self.lines.last_line()
    }

    /// The number of the next line.
    pub(super) fn next_number(&self) -> u64 {
        self.lines.number() + 1
    }

    /// Whether the first line is the rest of a line; true once at most.
    pub(super) fn take_inside_line(&mut self) -> bool {
        std::mem::take(&mut self.is_inside_line)
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }
}
