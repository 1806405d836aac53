//! Authentication in a run: certificates, principals with tokens and grants, and changes of them.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_postgres::Client as Sql;
use tonic::{
    Request, Status,
    service::Interceptor,
    transport::{Certificate, ClientTlsConfig},
};
use trunkline::{
    client::{Client, ConnectError},
    proto::{self, Operation},
    server,
};

use crate::{
    broker::Broker,
    postgres,
    support::{until, until_within},
};

/// The administrator, who may also publish and consume everywhere.
pub const ADMIN: &str = "admin";

/// How soon a change must apply on every broker.
const APPLIES_WITHIN: Duration = Duration::from_secs(5);

/// What the clients of a run need to authenticate.
pub struct Access {
    authority: String,
    /// Has the brokers' certificate and key, and a file with each principal's token.
    folder: TempDir,
    principals: Mutex<HashMap<Arc<str>, Principal>>,
    /// Whose token was made last.
    newest: Mutex<Arc<str>>,
    /// The administrator's connection to a broker that has answered.
    admin: tokio::sync::Mutex<Option<Client>>,
}

/// A principal's current token, and its grants.
#[derive(Clone)]
struct Principal {
    token: String,
    grants: Vec<(Operation, String)>,
}

/// A principal of a run, and how it authenticates; nobody in a run without authentication.
#[derive(Clone)]
pub struct Caller(Option<(Arc<Access>, Arc<str>)>);

impl Access {
    /// Makes certificates, and the first administrator of a database.
    pub async fn prepare(database: &str) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap().pem();
        fs::write(folder.path().join("cert.pem"), certificate).unwrap();
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        let authority = authority.pem();
        let (principals, newest) = (Mutex::default(), Mutex::new(ADMIN.into()));
        let access = Self { authority, folder, principals, newest, admin: Default::default() };
        access.set_token(ADMIN, server::bootstrap(database).await.unwrap());
        // Before brokers start, which then know it from the first call on.
        let grants = "insert into trunkline.access_grant (principal, operation, topics)
            values ($1, 'publish', '*'), ($1, 'consume', '*')";
        postgres::connect(database).await.unwrap().execute(grants, &[&ADMIN]).await.unwrap();
        Arc::new(access)
    }

    /// The environment of brokers that authenticate.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let file = |name| self.folder.path().join(name).to_str().unwrap().to_owned();
        vec![
            ("TRUNKLINE_AUTH", "required".to_owned()),
            ("TRUNKLINE_TLS_CERT", file("cert.pem")),
            ("TRUNKLINE_TLS_KEY", file("key.pem")),
        ]
    }

    fn principal(&self, name: &str) -> Principal {
        let principals = self.principals.lock().unwrap();
        principals.get(name).unwrap_or_else(|| panic!("{name} is no principal")).clone()
    }

    /// The names of all principals but the administrator.
    fn workers(&self) -> Vec<Arc<str>> {
        let names = self.principals.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        let mut names: Vec<_> = names.into_iter().filter(|name| &**name != ADMIN).collect();
        names.sort();
        names
    }

    fn token_file(&self, principal: &str) -> PathBuf {
        self.folder.path().join(format!("{principal}.token"))
    }

    /// Makes a token the one that its principal presents from now on.
    fn set_token(&self, principal: &str, token: String) {
        // Replaced at once, as the client library may be reading it.
        let new = self.folder.path().join("new.token");
        let mut principals = self.principals.lock().unwrap();
        fs::write(&new, &token).unwrap();
        fs::rename(&new, self.token_file(principal)).unwrap();
        let unknown = || Principal { token: String::new(), grants: Vec::new() };
        principals.entry(principal.into()).or_insert_with(unknown).token = token;
        *self.newest.lock().unwrap() = principal.into();
    }

    async fn client(&self, principal: &str, endpoints: &str) -> Result<Client, ConnectError> {
        let builder = Client::builder(endpoints).ca_certificate(&self.authority);
        builder.token_file(self.token_file(principal)).connect().await
    }

    /// Creates a principal with a token and grants.
    pub async fn enrol(&self, brokers: &[Broker], name: &str, grants: &[(Operation, &str)]) {
        for (operation, topics) in grants {
            let add = async |admin: Client| add_grant(&admin, name, *operation, topics).await;
            self.by_any(brokers, add).await;
        }
        let create = async |admin: Client| create_token(&admin, name).await;
        self.set_token(name, self.by_any(brokers, create).await);
        let grants = grants.iter().map(|(operation, topics)| (*operation, (*topics).to_owned()));
        let grants = grants.collect();
        self.principals.lock().unwrap().get_mut(name).unwrap().grants = grants;
    }

    /// Waits until brokers know the current tokens of all principals. A broker that knows the newest
    /// one knows them all.
    pub async fn are_known_to(&self, brokers: &[Broker]) {
        let newest = self.newest.lock().unwrap().clone();
        for broker in brokers {
            let client = self.client(&newest, &broker.endpoint()).await.unwrap();
            let known = async || client.access().who_am_i(proto::WhoAmIRequest {}).await.is_ok();
            until_within(APPLIES_WITHIN, "the tokens are known", known).await;
        }
    }

    /// Replaces the tokens of every third principal, by one of the brokers that runs. The old ones
    /// are revoked after their principals use the new ones, or before.
    pub async fn rotate(&self, brokers: &[Broker], revoked_first: bool) {
        for name in self.workers().into_iter().step_by(3) {
            let old = self.principal(&name).token;
            let revoke = async || {
                self.by_any(brokers, async |admin| {
                    let token_id = old[4..16].to_owned();
                    let request = proto::RevokeTokenRequest { token_id };
                    admin.access().revoke_token(request).await.map(drop)
                })
                .await;
            };
            if revoked_first {
                revoke().await;
            }
            let created = async |admin: Client| create_token(&admin, &name).await;
            self.set_token(&name, self.by_any(brokers, created).await);
            if !revoked_first {
                revoke().await;
            }
        }
    }

    /// Withdraws all grants of all principals at once, with SQL, and may leave them with another
    /// right on their topics.
    pub async fn withdraw_grants(&self, sql: &mut Sql, leaves_another: bool) {
        let another = |(name, operation, topics)| match operation {
            Operation::Consume => (name, Operation::Publish, topics),
            _ => (name, Operation::Read, topics),
        };
        let left = self.grants().into_iter().map(another).filter(|_| leaves_another);
        replace_grants(sql, left.collect()).await;
    }

    /// Gives all principals the grants that they had.
    pub async fn restore_grants(&self, sql: &mut Sql) {
        replace_grants(sql, self.grants()).await;
    }

    /// Who is granted what while nothing is withdrawn.
    fn grants(&self) -> Vec<(Arc<str>, Operation, String)> {
        let each = self.workers().into_iter().flat_map(|name| {
            let grants = self.principal(&name).grants;
            grants.into_iter().map(move |(operation, topics)| (name.clone(), operation, topics))
        });
        each.collect()
    }

    /// Repeats a call of the administrator, on one broker after the other, until it succeeds.
    async fn by_any<T>(
        &self,
        brokers: &[Broker],
        mut call: impl AsyncFnMut(Client) -> Result<T, Status>,
    ) -> T {
        let mut done = None;
        let mut brokers = brokers.iter().filter(|broker| broker.is_running()).cycle();
        let mut admin = self.admin.lock().await;
        until("the administrator's call succeeds", async || {
            let attempt = async {
                let client = match &*admin {
                    Some(client) => client.clone(),
                    None => {
                        let endpoint = brokers.next().expect("a broker runs").endpoint();
                        self.client(ADMIN, &endpoint).await.ok()?
                    }
                };
                Some((call(client.clone()).await.ok()?, client))
            };
            // A broker may be suspended.
            let answered = tokio::time::timeout(Duration::from_secs(2), attempt).await;
            let (answer, client) = answered.ok().flatten().unzip();
            (done, *admin) = (answer, client);
            done.is_some()
        })
        .await;
        done.unwrap()
    }
}

/// Makes these all the grants that there are, but for the administrator's.
async fn replace_grants(sql: &mut Sql, grants: Vec<(Arc<str>, Operation, String)>) {
    let transaction = sql.transaction().await.unwrap();
    let remove = "delete from trunkline.access_grant where principal <> $1";
    transaction.execute(remove, &[&ADMIN]).await.unwrap();
    for (name, operation, topics) in grants {
        let add = "insert into trunkline.access_grant (principal, operation, topics)
            values ($1, lower(split_part($2, '_', 2)), $3)";
        let operation = operation.as_str_name();
        transaction.execute(add, &[&&*name, &operation, &topics]).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

async fn add_grant(
    admin: &Client,
    principal: &str,
    operation: Operation,
    topics: &str,
) -> Result<(), Status> {
    let (principal, topics) = (principal.to_owned(), topics.to_owned());
    let request = proto::AddGrantRequest { principal, operation: operation.into(), topics };
    admin.access().add_grant(request).await.map(drop)
}

async fn create_token(admin: &Client, principal: &str) -> Result<String, Status> {
    let request =
        proto::CreateTokenRequest { principal: principal.to_owned(), ..Default::default() };
    Ok(admin.access().create_token(request).await?.into_inner().secret)
}

impl Caller {
    /// A principal, if the run authenticates.
    pub fn new(access: Option<&Arc<Access>>, principal: &str) -> Self {
        Self(access.map(|access| (access.clone(), principal.into())))
    }

    /// A connection of the client library to one of some endpoints.
    pub async fn connect(&self, endpoints: &str) -> Result<Client, ConnectError> {
        match &self.0 {
            Some((access, principal)) => access.client(principal, endpoints).await,
            None => Client::connect(endpoints).await,
        }
    }

    /// What it takes to encrypt a connection; `None` if it is not to be encrypted.
    pub fn tls(&self) -> Option<ClientTlsConfig> {
        let (access, _) = self.0.as_ref()?;
        let authority = Certificate::from_pem(&access.authority);
        Some(ClientTlsConfig::new().ca_certificate(authority))
    }

    /// The endpoint at a local port.
    pub fn endpoint(&self, port: u16) -> String {
        let scheme = if self.0.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{port}")
    }
}

/// Adds the token that is current when a call is made.
impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some((access, principal)) = &self.0 {
            let token = access.principal(principal).token;
            let header = format!("Bearer {token}").parse().expect("a token is ASCII");
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}
