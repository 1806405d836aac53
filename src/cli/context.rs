//! `trunkline context`: named brokers, stored in `trunkline/config.toml` in the user's
//! configuration folder (`$XDG_CONFIG_HOME`, or else `~/.config`).

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    failure::Failure,
    output::{OutputArgs, Table, print_line},
};
use crate::client::Client;

/// Name brokers, and choose the one to use.
#[derive(Debug, Subcommand)]
pub(super) enum ContextCommand {
    /// Name a broker, or change the broker of a name; the first name added becomes the one in use.
    Add {
        /// The name.
        name: String,
        /// The broker's address; of several, separated by commas, the first that answers is used.
        url: String,
    },
    /// Use a named broker by default.
    Use {
        /// The name.
        name: String,
    },
    /// List the names.
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove a name.
    Remove {
        /// The name.
        name: String,
    },
}

/// The file's content.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    /// The name of the context in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Context {
    endpoint: String,
}

pub(super) fn run(command: ContextCommand) -> Result<(), Failure> {
    let mut contexts = Contexts::load()?;
    let mut out = io::stdout();
    match command {
        ContextCommand::Add { name, url } => {
            Client::builder(&url).check()?;
            contexts.current.get_or_insert_with(|| name.clone());
            contexts.contexts.insert(name.clone(), Context { endpoint: url.clone() });
            contexts.save()?;
            print_line(&mut out, &format!("context {name} is {url}"))?;
        }
        ContextCommand::Use { name } => {
            contexts.endpoint(Some(&name))?;
            contexts.current = Some(name.clone());
            contexts.save()?;
            print_line(&mut out, &format!("context {name} is in use"))?;
        }
        ContextCommand::List { output } => {
            let mut table = Table::new(&["", "NAME", "ENDPOINT"]);
            for (name, Context { endpoint }) in contexts.contexts {
                let used = contexts.current.as_ref() == Some(&name);
                let object = json!({ "name": name, "endpoint": endpoint, "in_use": used });
                table.row([(if used { "*" } else { "" }).to_owned(), name, endpoint], object);
            }
            table.print(&mut out, output)?;
        }
        ContextCommand::Remove { name } => {
            contexts.endpoint(Some(&name))?;
            contexts.contexts.remove(&name);
            contexts.current.take_if(|current| *current == name);
            contexts.save()?;
            print_line(&mut out, &format!("removed context {name}"))?;
        }
    }
    Ok(())
}

impl Contexts {
    /// Reads the file; there are no contexts if there is no file.
    pub(super) fn load() -> Result<Self, Failure> {
        let path = path()?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        toml::from_str(&text).map_err(|error| failed("read", &path, &error.message()))
    }

    /// The endpoint of a context; without a name, that of the context in use, if there is one.
    pub(super) fn endpoint(&self, name: Option<&str>) -> Result<Option<String>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        let context = self.contexts.get(name).ok_or_else(|| {
            Failure::usage(format!(
                "there is no context {name}: `trunkline context list` lists the contexts"
            ))
        })?;
        Ok(Some(context.endpoint.clone()))
    }

    /// Replaces the file atomically.
    fn save(&self) -> Result<(), Failure> {
        let path = path()?;
        let write = || {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let text = toml::to_string(self).map_err(io::Error::other)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.persist(&path)?;
            io::Result::Ok(())
        };
        write().map_err(|error| failed("write", &path, &error))
    }
}

fn path() -> Result<PathBuf, Failure> {
    let folders = etcetera::choose_base_strategy()
        .map_err(|error| Failure::refused(format!("find the home folder: {error}")))?;
    Ok(folders.config_dir().join("trunkline/config.toml"))
}

fn failed(verb: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::refused(format!("{verb} {}: {error}", path.display()))
}
