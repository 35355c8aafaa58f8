//! The control plane as one value: started, asked where it listens, stopped.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ravelin_contract::{audit::Severity, config::Control, link::FieldError};
use ravelin_policy::{Document, TestSignals, test_signals};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    api::{self, metrics::OwnCounters},
    certs::{self, LinkIdentity},
    collect::{self, Links, records, registry::Registry},
    datadir::{DataDir, write_private},
    error::ControlError,
    http, notify,
    publish::{ConfigFault, Publisher},
    soc2::seal::Signer,
    store::{
        EventExt, Store, WriteTx, event,
        tokens::{self, Role},
    },
};

/// Where the API listens when no config says so.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// The store when no config says so.
const DEFAULT_STORE: &str = "sqlite:ravelin.db";

/// Refused requests are recorded together for this long.
const REFUSALS_PERIOD: Duration = Duration::from_secs(1);

/// What a start needs to know.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// Config file, imported when the store is empty or the file changed since its last import: at
    /// the start, and by [`Server::reload`].
    pub config: Option<PathBuf>,
    /// Data directory.
    pub data: PathBuf,
}

/// A running control plane.
#[derive(Debug)]
pub struct Server {
    api: SocketAddr,
    link: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    store: Store,
    publisher: Arc<Publisher>,
    config: Option<PathBuf>,
    _data: DataDir,
}

impl Server {
    /// Starts on the addresses of the config.
    ///
    /// # Errors
    /// See [`ControlError`]; nothing runs then.
    pub async fn start(options: ControlOptions) -> Result<Self, ControlError> {
        Self::start_on(options, None).await
    }

    /// Starts with the API on `listen` in place of `control.listen`.
    ///
    /// # Errors
    /// See [`ControlError`]; nothing runs then.
    pub async fn start_on(
        options: ControlOptions,
        listen: Option<SocketAddr>,
    ) -> Result<Self, ControlError> {
        let file = options.config.as_deref().map(read_config).transpose()?;
        let data = DataDir::open(&options.data)?;
        let setting = match &file {
            Some((path, text)) => store_of(path, text)?,
            None => None,
        };
        let setting = setting.as_deref().unwrap_or(DEFAULT_STORE);
        let store = Store::open(setting, &data).await?;
        let registry = Arc::new(Registry::default());
        let publisher = Publisher::load(store.clone(), Arc::clone(&registry))
            .await
            .map_err(|fault| startup(fault, Path::new("config in the store")))?;
        if let Some((path, text)) = &file {
            publisher.import_file(text).await.map_err(|fault| startup(fault, path))?;
        }
        let active = publisher.active();
        let control = active.as_ref().and_then(|active| active.snapshot.control.clone());
        first_token(&store, &data).await?;
        Signer::ensure(&data.certs())?;
        let signals = signals(options.config.as_deref());
        if !signals.0.is_empty() {
            tracing::warn!(?signals, "test signals in the environment of the control plane");
        }

        let (stop, stopped) = watch::channel(false);
        let counters = Arc::new(OwnCounters::default());
        let wake = notify::Wake::default();
        let (records, writer) = records::start(
            store.clone(),
            publisher.watch(),
            Arc::clone(&counters),
            wake.clone(),
            stopped.clone(),
        );
        let links = Arc::new(Links {
            store: store.clone(),
            registry: Arc::clone(&registry),
            active: publisher.watch(),
            records,
            counters: Arc::clone(&counters),
            stop: stopped.clone(),
        });
        let mut tasks = vec![collect::listen_unix(&data.link_socket(), Arc::clone(&links))?];
        let link = link_listener(control.as_ref(), &data, links, &mut tasks).await?;
        let tls = control.as_ref().and_then(|control| control.tls.as_ref());
        let tls = tls.map(|files| certs::https_config(&data, files)).transpose()?;
        let router = api::router(
            store.clone(),
            Arc::clone(&publisher),
            registry,
            Arc::clone(&counters),
            signals,
            tls.is_some(),
            wake.clone(),
            data.root().to_owned(),
        );
        let address = match (listen, &control) {
            (Some(address), _) => address.to_string(),
            (None, Some(control)) => control.listen.clone(),
            (None, None) => DEFAULT_LISTEN.to_owned(),
        };
        let http = http::listen(&address, tls, router, Arc::clone(&counters), stopped).await?;
        tasks.push(http.task);
        tasks.push(writer);
        tasks.push(notify::deliver::start(
            store.clone(),
            publisher.watch(),
            data.root().to_owned(),
            Arc::clone(&counters),
            wake,
            stop.subscribe(),
        ));
        tasks.push(tokio::spawn(note_refusals(store.clone(), counters, stop.subscribe())));
        note(&store, "control.started", active.map_or(0, |active| active.version)).await?;
        match link {
            Some(link) => tracing::info!(api = %http.address, %link, "ready"),
            None => tracing::info!(api = %http.address, "ready"),
        }
        let config = options.config;
        Ok(Self { api: http.address, link, stop, tasks, store, publisher, config, _data: data })
    }

    /// Reads the config file again, as at the start: put in force if it changed since it was imported
    /// last. A file with a fault changes nothing and is told.
    pub async fn reload(&self) {
        let Some(path) = &self.config else {
            return tracing::info!("SIGHUP ignored: there is no config file");
        };
        let put = async {
            let (path, text) = read_config(path)?;
            self.publisher.import_file(&text).await.map_err(|fault| startup(fault, &path))
        };
        match put.await {
            Ok(true) => tracing::info!("SIGHUP: the config file is in force"),
            Ok(false) => tracing::info!("SIGHUP: the config file did not change"),
            Err(error) => tracing::warn!(%error, "SIGHUP changes nothing"),
        }
    }

    /// Where the API listens.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where nodes on other machines connect, if configured.
    #[must_use]
    pub fn link_address(&self) -> Option<SocketAddr> {
        self.link
    }

    /// Stops taking work, lets what runs end, and closes the store.
    ///
    /// # Errors
    /// What the database says of the last event.
    pub async fn stop(self) -> Result<(), ControlError> {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the control plane");
            }
        }
        let version = self.publisher.active().map_or(0, |active| active.version);
        note(&self.store, "control.stopped", version).await?;
        self.store.close().await;
        Ok(())
    }
}

fn read_config(path: &Path) -> Result<(PathBuf, String), ControlError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ControlError::File { path: path.to_path_buf(), source })?;
    Ok((path.to_path_buf(), text))
}

/// `control.store` of a config file that reads; its other faults are found at the import.
fn store_of(path: &Path, text: &str) -> Result<Option<String>, ControlError> {
    let document = Document::from_yaml(text)
        .map_err(|errors| ControlError::Config { path: path.to_path_buf(), errors })?;
    Ok(document.config.control.map(|control| control.store.0))
}

fn startup(fault: ConfigFault, path: &Path) -> ControlError {
    let one = |reason: &str| {
        let error = FieldError { path: String::new(), line: None, reason: reason.to_owned() };
        ControlError::Config { path: path.to_path_buf(), errors: vec![error] }
    };
    match fault {
        ConfigFault::Invalid(errors) => ControlError::Config { path: path.to_path_buf(), errors },
        ConfigFault::TooLarge => one("the document is too large"),
        ConfigFault::NoSuchVersion => one("the version in force is missing"),
        ConfigFault::NothingActive | ConfigFault::Moved { .. } => one("no config is in force"),
        ConfigFault::Store(error) => error.into(),
    }
}

/// What in the surroundings of this process says "test" (compliance-systems E2-E4).
fn signals(config: Option<&Path>) -> TestSignals {
    let name = config.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let variables: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect();
    test_signals(
        name.as_deref(),
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

/// Makes the first admin token in an empty store and writes it to `admin.token`. The file is
/// written before the commit: a token that nobody holds would lock everybody out.
async fn first_token(store: &Store, data: &DataDir) -> Result<(), ControlError> {
    let mut tx: WriteTx = store.write().await?;
    if tokens::admins(tx.connection()).await? > 0 {
        return Ok(());
    }
    let (token, secret) =
        tokens::create(tx.connection(), "first-admin", Role::Admin, "system", None).await?;
    write_private(&data.admin_token(), format!("{secret}\n").as_bytes())?;
    let created = event("token.created", Severity::Warning, "system", 0)
        .with("token", token.id)
        .with("name", token.name)
        .with("role", token.role.name());
    tx.audit(created).await?;
    Ok(tx.commit().await?)
}

async fn link_listener(
    control: Option<&Control>,
    data: &DataDir,
    links: Arc<Links>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<Option<SocketAddr>, ControlError> {
    let link = control.and_then(|control| control.link.as_ref());
    let host = link
        .and_then(|link| link.listen.rsplit_once(':'))
        .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']').to_owned());
    certs::ensure(data, &host.into_iter().collect::<Vec<_>>())?;
    let Some(link) = link else { return Ok(None) };
    let identity = LinkIdentity::configured(data, link);
    let listener = collect::listen_tls(&link.listen, &identity, links).await?;
    tasks.push(listener.task);
    Ok(Some(listener.address))
}

async fn note(store: &Store, kind: &str, version: u64) -> Result<(), ControlError> {
    let mut tx = store.write().await?;
    let event = event(kind, Severity::Info, "system", version)
        .with("software", env!("CARGO_PKG_VERSION"))
        .with("pid", std::process::id());
    tx.audit(event).await?;
    Ok(tx.commit().await?)
}

/// Leaves a sign in the audit trail when requests were refused for want of a right: at most one
/// event in [`REFUSALS_PERIOD`], however many there were, so that nobody can fill the store by it.
async fn note_refusals(store: Store, counters: Arc<OwnCounters>, mut stop: watch::Receiver<bool>) {
    let mut told = 0;
    loop {
        let stopped = tokio::time::timeout(REFUSALS_PERIOD, stop.wait_for(|stop| *stop));
        let stopping = stopped.await.is_ok();
        let count = counters.auth_refused.get();
        if count > told {
            let event = event("auth.refused", Severity::Warning, "system", 0)
                .with("requests", count - told);
            let stored = async {
                let mut tx = store.write().await?;
                tx.audit(event).await?;
                tx.commit().await
            };
            match stored.await {
                Ok(()) => told = count,
                Err(error) => tracing::error!(%error, "refusals could not be recorded"),
            }
        }
        if stopping {
            return;
        }
    }
}
