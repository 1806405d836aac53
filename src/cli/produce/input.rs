//! Where lines come from.

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
        lines::{Line, Lines, Piece},
    },
    identity::{self, Inode, PRINT_BYTES, Position},
};

const READ_BYTES: usize = 256 * 1024;

/// What is given on the command line, opened.
pub(super) struct Input {
    pub(super) name: String,
    /// Which file or pipe it is; nothing of a device, which may well be written to as well.
    pub(super) inode: Option<Inode>,
    kind: Kind,
}

enum Kind {
    File(RegularFile),
    /// Standard input, a pipe or a device: it can be read once, from wherever it is.
    Stream(Box<dyn AsyncRead + Unpin + Send>),
}

/// A file whose place can be kept.
pub(super) struct RegularFile {
    pub(super) file: File,
    pub(super) inode: Inode,
    /// Where it really lies.
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// Opens all files before a line of any is sent.
pub(super) async fn open_all(files: &[OsString]) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let (inode, kind) = match file.as_os_str() == OsStr::new("-") {
            true => (stdin_inode(), Kind::Stream(Box::new(tokio::io::stdin()))),
            false => open(file, &name).await?,
        };
        inputs.push(Input { name, inode, kind });
    }
    Ok(inputs)
}

/// Standard input may be a file as well.
fn stdin_inode() -> Option<Inode> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
    Inode::of_data(&File::from(stdin).metadata().ok()?)
}

async fn open(path: &OsStr, name: &str) -> Result<(Option<Inode>, Kind), Failure> {
    let failed = |error| Failure::refused(format!("open {name}: {error}"));
    let opened = tokio::fs::File::open(path).await.map_err(failed)?;
    let metadata = opened.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::refused(format!("open {name}: it is a folder")));
    }
    if !metadata.is_file() {
        return Ok((Inode::of_data(&metadata), Kind::Stream(Box::new(opened))));
    }
    let file = RegularFile {
        file: opened.into_std().await,
        inode: Inode::from(&metadata),
        path: std::fs::canonicalize(path).map_err(failed)?,
        size: metadata.len(),
    };
    Ok((Some(file.inode), Kind::File(file)))
}

impl Input {
    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<&RegularFile> {
        match &self.kind {
            Kind::File(file) => Some(file),
            Kind::Stream(_) => None,
        }
    }

    /// The same file, to be read besides, one reader after the other; nothing of a stream.
    pub(super) fn reopened(&self) -> io::Result<Option<Self>> {
        let Kind::File(RegularFile { file, inode, path, size }) = &self.kind else {
            return Ok(None);
        };
        let (file, path) = (file.try_clone()?, path.clone());
        let kind = Kind::File(RegularFile { file, inode: *inode, path, size: *size });
        Ok(Some(Self { name: self.name.clone(), inode: self.inode, kind }))
    }

    /// Its lines from a position on; from a stream, from wherever it is.
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

/// Lines of an input.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) is_file: bool,
    /// How many bytes there are to read, if that is known.
    pub(super) bytes: Option<u64>,
    reader: Box<dyn AsyncRead + Unpin + Send>,
    /// Where it lies and which one it is, if it is a file.
    origin: Option<(PathBuf, Inode)>,
    lines: Lines,
    /// The beginning of the file, up to [`PRINT_BYTES`] of it.
    head: Vec<u8>,
    /// Whether what comes first is the rest of a line that was shipped unfinished.
    is_inside_line: bool,
}

impl Source {
    fn seek(&mut self, file: RegularFile, at: &Position, limit: usize) -> io::Result<()> {
        let RegularFile { mut file, inode, path, size } = file;
        self.origin = Some((path, inode));
        self.is_file = true;
        self.bytes = Some(size.saturating_sub(at.offset));
        self.head = identity::read_head(&file, at.offset)?;
        self.is_inside_line = identity::is_inside_line(&file, at.offset)?;
        file.seek(SeekFrom::Start(at.offset))?;
        // The rest of a line has that line's number.
        let number = at.lines.saturating_sub(u64::from(self.is_inside_line));
        self.lines = Lines::starting_at(at.offset, number, limit);
        self.reader = Box::new(tokio::fs::File::from_std(file));
        Ok(())
    }

    /// Reads a file again from a line on; returns whether it could be.
    pub(super) fn go_back(&mut self, start: u64, number: u64, limit: usize) -> io::Result<bool> {
        let Some((path, inode)) = self.origin.clone() else { return Ok(false) };
        // Opened anew: what still reads the file of before moves no place in this one.
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

    /// Reads more; returns how many bytes, 0 at the end.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        let buffer = self.lines.buffer();
        buffer.reserve(READ_BYTES);
        let before = buffer.len();
        let read = self.reader.read_buf(buffer).await?;
        if self.is_file && self.head.len() < PRINT_BYTES {
            let more = &buffer[before..];
            let missing = PRINT_BYTES - self.head.len();
            self.head.extend_from_slice(&more[..more.len().min(missing)]);
        }
        Ok(read)
    }

    /// The next piece of what was read, if there is one.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        self.lines.next_piece()
    }

    /// The last line, if it has no end.
    pub(super) fn last_line(&mut self) -> Option<Line> {
        self.lines.last_line()
    }

    /// The number of the line that is cut next.
    pub(super) fn next_number(&self) -> u64 {
        self.lines.number() + 1
    }

    /// Whether what comes first is the rest of a line; said once.
    pub(super) fn take_inside_line(&mut self) -> bool {
        std::mem::take(&mut self.is_inside_line)
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }
}
