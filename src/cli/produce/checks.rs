//! Checks a run before anything is registered, fenced or sent.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::Code;

use super::{
    super::failure::Failure,
    identity::{Inode, folder},
    input::Input,
    options::ProduceArgs,
};
use crate::{
    client::Client,
    proto::{GetProducerRequest, MAX_REQUEST_MESSAGES, Producer},
};

/// The maximum of `--linger`.
const MAX_LINGER: Duration = Duration::from_secs(600);

/// Refuses options that a producer does not accept.
pub(super) fn options(options: &ProduceArgs) -> Result<(), Failure> {
    if !(1..=MAX_REQUEST_MESSAGES).contains(&options.batch) {
        return Err(Failure::usage("--batch must be 1 to 10,000"));
    }
    if options.linger > MAX_LINGER {
        return Err(Failure::usage("--linger must be 10 minutes at the most"));
    }
    Ok(())
}

/// The producer's registration; `None` if it is missing and the run creates it. Also checks the
/// registration on the topic for bad lines. Changes nothing.
pub(super) async fn registration(
    client: &Client,
    options: &ProduceArgs,
) -> Result<Option<Producer>, Failure> {
    let found = find(client, options, &options.topic).await?;
    if let Some(topic) = &options.bad_lines_topic {
        find(client, options, topic).await?;
    }
    Ok(found)
}

/// The producer's registration on a topic; `None` if it is missing and the run creates it.
pub(super) async fn find(
    client: &Client,
    options: &ProduceArgs,
    topic: &str,
) -> Result<Option<Producer>, Failure> {
    let (topic, producer_id) = (topic.to_owned(), options.producer.clone());
    let request = GetProducerRequest { topic, producer_id };
    match client.producers().get_producer(request).await {
        Ok(found) => Ok(found.into_inner().producer),
        Err(status) if options.register && status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// Refuses files that would be both read and written, and inputs that cannot be distinguished.
pub(super) fn files(options: &ProduceArgs, inputs: &[Input]) -> Result<(), Failure> {
    let written = [("--bad-lines-file", &options.bad_lines_file), ("--state", &options.state)];
    for (flag, path) in written {
        let inode = path.as_deref().and_then(inode);
        if let Some(input) = inputs.iter().find(|input| inode.is_some() && input.inode == inode) {
            let name = &input.name;
            return Err(Failure::usage(format!("{flag} names the input {name} itself")));
        }
    }
    if let Some(state) = &options.state {
        bad_lines_file(options, state)?;
    }
    if !options.resume {
        return Ok(());
    }
    let has_stream = inputs.iter().any(|input| input.file().is_none());
    if has_stream && (inputs.len() > 1 || options.state.is_some()) {
        return Err(Failure::usage(
            "standard input, pipes and devices have no position that can be stored: with \
             --resume, one of them must be the only input, without --state",
        ));
    }
    given_once(inputs)
}

/// Refuses a file for bad lines that is the state file.
pub(super) fn bad_lines_file(options: &ProduceArgs, state: &Path) -> Result<(), Failure> {
    match &options.bad_lines_file {
        Some(bad_lines) if is_same(bad_lines, state) => Err(Failure::usage(format!(
            "--bad-lines-file names the state file {}",
            state.display()
        ))),
        _ => Ok(()),
    }
}

fn given_once(inputs: &[Input]) -> Result<(), Failure> {
    for (at, input) in inputs.iter().enumerate() {
        let Some(file) = input.file() else { continue };
        let mut earlier = inputs[..at].iter().filter_map(Input::file);
        if earlier.any(|other| other.inode == file.inode) {
            return Err(Failure::usage(format!("{} is given twice", input.name)));
        }
    }
    Ok(())
}

/// The inode of a path's file, if there is one with data.
pub(super) fn inode(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().as_ref().and_then(Inode::of_data)
}

/// Whether two paths name the same file, or will once it is created.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => Inode::from(&one) == Inode::from(&other),
        (Err(_), Err(_)) => future_path(one) == future_path(other),
        _ => false,
    }
}

/// The canonical path of a file that does not exist yet: the path and its folder may be links.
fn future_path(path: &Path) -> PathBuf {
    let path = match fs::read_link(path) {
        Ok(target) => folder(path).join(target),
        Err(_) => path.to_owned(),
    };
    let real = fs::canonicalize(folder(&path)).unwrap_or_else(|_| folder(&path).to_owned());
    real.join(path.file_name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_same_file_are_recognised_even_before_it_exists() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink(folder.path(), path("folder")).unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        for _ in 0..2 {
            assert!(is_same(&path("file"), &path("folder/file")));
            assert!(is_same(&path("file"), &path("link")));
            assert!(!is_same(&path("file"), &path("other")));
            fs::write(path("file"), "").unwrap();
        }
        fs::hard_link(path("file"), path("hard")).unwrap();
        assert!(is_same(&path("file"), &path("hard")));
        fs::write(path("other"), "").unwrap();
        assert!(!is_same(&path("file"), &path("other")));
    }
}
