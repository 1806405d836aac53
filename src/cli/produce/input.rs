//! Where lines come from.

use std::ffi::{OsStr, OsString};

use tokio::{fs::File, io::AsyncRead};

use super::super::failure::Failure;

pub(super) struct Input {
    pub(super) name: String,
    pub(super) reader: Box<dyn AsyncRead + Unpin + Send>,
    /// How many bytes there are, if that is known.
    pub(super) bytes: Option<u64>,
}

/// Opens all files before a line of any is sent.
pub(super) async fn open_all(files: &[OsString]) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        inputs.push(match file.as_os_str() == OsStr::new("-") {
            true => Input { name, reader: Box::new(tokio::io::stdin()), bytes: None },
            false => open(file, name).await?,
        });
    }
    Ok(inputs)
}

async fn open(file: &OsStr, name: String) -> Result<Input, Failure> {
    let failed = |error| Failure::refused(format!("open {name}: {error}"));
    let opened = File::open(file).await.map_err(failed)?;
    let metadata = opened.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::refused(format!("open {name}: it is a folder")));
    }
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok(Input { name, reader: Box::new(opened), bytes })
}
