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
    credentials::{Credentials, Token},
    failure::Failure,
    output::{OutputArgs, Table, print_line},
};
use crate::client::Client;

/// Name brokers, and choose the one to use.
#[derive(Debug, Subcommand)]
pub(super) enum ContextCommand {
    /// Name a broker, or change the broker of a name; the first name added becomes the one in use.
    ///
    /// The context also keeps the paths that --token-file, --ca-file, --client-cert and --client-key
    /// give. It never keeps a token itself.
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
pub(super) struct Context {
    pub(super) endpoint: String,
    /// Absolute paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<PathBuf>,
}

impl Context {
    /// A context of an endpoint and of the files that flags name.
    fn new(endpoint: String, credentials: Credentials) -> Result<Self, Failure> {
        let absolute = |file: Option<PathBuf>| {
            let resolve = |path: PathBuf| {
                let resolved = std::path::absolute(&path);
                resolved.map_err(|error| failed("resolve", &path, &error))
            };
            file.map(resolve).transpose()
        };
        let token_file = match credentials.token {
            Some(Token::File(path)) => Some(path),
            Some(Token::Text(_)) | None => None,
        };
        let (client_cert, client_key) = credentials.identity.unzip();
        Ok(Self {
            endpoint,
            token_file: absolute(token_file)?,
            ca_file: absolute(credentials.ca_file)?,
            client_cert: absolute(client_cert)?,
            client_key: absolute(client_key)?,
        })
    }

    pub(super) fn credentials(&self) -> Result<Credentials, Failure> {
        let Self { token_file, ca_file, client_cert, client_key, .. } = self;
        if client_cert.is_some() != client_key.is_some() {
            let problem = "client_cert and client_key belong together";
            return Err(failed("read", &path()?, &problem));
        }
        Ok(Credentials {
            token: token_file.clone().map(Token::File),
            ca_file: ca_file.clone(),
            identity: client_cert.clone().zip(client_key.clone()),
        })
    }

    fn object(&self, name: &str, in_use: bool) -> serde_json::Value {
        let mut object = json!({ "name": name, "endpoint": self.endpoint, "in_use": in_use });
        let files = [
            ("token_file", &self.token_file),
            ("ca_file", &self.ca_file),
            ("client_cert", &self.client_cert),
            ("client_key", &self.client_key),
        ];
        for (file, path) in files {
            if let Some(path) = path {
                object[file] = path.display().to_string().into();
            }
        }
        object
    }
}

pub(super) fn run(command: ContextCommand, given: Credentials) -> Result<(), Failure> {
    let mut contexts = Contexts::load()?;
    let mut out = io::stdout();
    match command {
        ContextCommand::Add { name, url } => {
            let context = Context::new(url.clone(), given)?;
            context.credentials()?.give(Client::builder(&url))?.check()?;
            contexts.current.get_or_insert_with(|| name.clone());
            contexts.contexts.insert(name.clone(), context);
            contexts.save()?;
            print_line(&mut out, &format!("context {name} is {url}"))?;
        }
        ContextCommand::Use { name } => {
            contexts.chosen(Some(&name))?;
            contexts.current = Some(name.clone());
            contexts.save()?;
            print_line(&mut out, &format!("context {name} is in use"))?;
        }
        ContextCommand::List { output } => {
            let mut table = Table::new(&["", "NAME", "ENDPOINT"]);
            for (name, context) in contexts.contexts {
                let used = contexts.current.as_ref() == Some(&name);
                let object = context.object(&name, used);
                let mark = if used { "*" } else { "" };
                table.row([mark.to_owned(), name, context.endpoint], object);
            }
            table.print(&mut out, output)?;
        }
        ContextCommand::Remove { name } => {
            contexts.chosen(Some(&name))?;
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

    /// A context; without a name, the one in use, if there is one.
    pub(super) fn chosen(&self, name: Option<&str>) -> Result<Option<&Context>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        let context = self.contexts.get(name).ok_or_else(|| {
            Failure::usage(format!(
                "there is no context {name}: `trunkline context list` lists the contexts"
            ))
        })?;
        Ok(Some(context))
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
