//! `trunkline context`: named brokers, stored in `trunkline/config.toml` in the user's
//! configuration folder (`$XDG_CONFIG_HOME`, or else `~/.config`).

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Subcommand;
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    credentials::{Credentials, Token},
    failure::Failure,
    output::{OutputArgs, Table, confirm},
    suggestion::nearest,
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
        /// The name: 1 to 64 letters, digits, dots, underscores and hyphens.
        name: ContextName,
        /// The broker's address, such as localhost:50051; of several, separated by commas, the first
        /// that answers is used.
        #[arg(value_name = "ADDRESS")]
        url: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Use a named broker by default.
    Use {
        /// The name.
        name: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List the names.
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove a name.
    #[command(visible_alias = "rm")]
    Remove {
        /// The name.
        name: String,
        #[command(flatten)]
        output: OutputArgs,
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
        ContextCommand::Add { name: ContextName(name), url, output } => {
            let context = Context::new(url.clone(), given)?;
            context.credentials()?.give(Client::builder(&url))?.check()?;
            contexts.current.get_or_insert_with(|| name.clone());
            let object = context.object(&name, contexts.current.as_ref() == Some(&name));
            contexts.contexts.insert(name.clone(), context);
            contexts.save()?;
            confirm(&mut out, output, &format!("context {name} is {url}"), &object)?;
        }
        ContextCommand::Use { name, output } => {
            contexts.chosen(Some(&name))?;
            contexts.current = Some(name.clone());
            contexts.save()?;
            let object = json!({ "name": name });
            confirm(&mut out, output, &format!("context {name} is in use"), &object)?;
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
        ContextCommand::Remove { name, output } => {
            contexts.chosen(Some(&name))?;
            contexts.contexts.remove(&name);
            contexts.current.take_if(|current| *current == name);
            contexts.save()?;
            let object = json!({ "name": name });
            confirm(&mut out, output, &format!("removed context {name}"), &object)?;
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

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.contexts.keys().map(String::as_str)
    }

    /// A context; without a name, the one in use, if there is one.
    pub(super) fn chosen(&self, name: Option<&str>) -> Result<Option<&Context>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        let context = self.contexts.get(name).ok_or_else(|| {
            let failure = Failure::usage(format!(
                "there is no context {name}: `trunkline context list` lists the contexts"
            ));
            match nearest(name, self.names()) {
                Some(name) => failure.after(&format!("did you mean {name}?")),
                None => failure,
            }
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

/// The name of a new context. Names that a shell or a table would garble are refused.
#[derive(Clone, Debug)]
pub(super) struct ContextName(String);

impl FromStr for ContextName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_permitted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if text.trim().is_empty() {
            return Err("it is empty");
        }
        match begins_well && text.len() <= 64 && text.chars().all(is_permitted) {
            true => Ok(Self(text.to_owned())),
            false => {
                Err("must be 1 to 64 characters out of A-Z a-z 0-9 . _ -, of which the first \
                          is a letter or a digit")
            }
        }
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
