//! Config documents: checked whole, stored by version, put in force, published to the nodes.
//!
//! What is in force is one value in a watch channel, replaced only after the transaction that says
//! so has committed; every link watches it. A change runs to its end even if the client that asked
//! for it goes away.

mod contacts;
mod redact;

pub use contacts::contacts_of;
pub use redact::redacted;
pub(crate) use redact::secrets;

use std::{sync::Arc, time::Duration};

use ravelin_contract::{
    audit::{AuditEvent, Severity},
    link::FieldError,
};
use ravelin_policy::{Compiled, Document, Snapshot, compile, restart_needed};
use tokio::sync::{Mutex, watch};

use crate::{
    collect::registry::{NodeResult, Registry},
    e911::{self, Site},
    error::StoreError,
    ident, notify,
    store::{
        EventExt, Store, WriteTx,
        configs::{self, Activation, NewVersion},
        event, sites,
    },
};

/// Largest config document, in octets: as JSON text it still fits a frame of the link.
pub const DOCUMENT_MAX_BYTES: usize = 24 * 1024 * 1024;
/// How long an activation waits for the acknowledgements of the nodes.
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Sha-256 of the config file that was imported last.
const META_FILE_SHA256: &str = "config.file.sha256";

/// The config in force.
#[derive(Debug)]
pub struct Active {
    pub activation: u64,
    pub version: u64,
    pub sha256: String,
    pub document: Arc<str>,
    pub snapshot: Arc<Snapshot>,
    pub warnings: Vec<FieldError>,
    /// What the document says about emergency notification.
    pub notify: Arc<notify::Policy>,
}

/// Where the config in force can be watched.
pub type ActiveWatch = watch::Receiver<Option<Arc<Active>>>;

/// Why a config change did not take place.
#[derive(Debug)]
pub enum ConfigFault {
    /// The document has faults; nothing was stored.
    Invalid(Vec<FieldError>),
    TooLarge,
    NoSuchVersion,
    /// There is no config in force yet.
    NothingActive,
    /// The caller built on a version that is no longer the newest (or no longer in force).
    Moved {
        expected: u64,
        found: u64,
    },
    Store(StoreError),
}

impl From<StoreError> for ConfigFault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for ConfigFault {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A document that was taken in.
#[derive(Debug)]
pub struct Staged {
    pub version: u64,
    pub sha256: String,
    pub warnings: Vec<FieldError>,
    /// Paths that only a restart of the edge can apply.
    pub restart: Vec<String>,
}

/// A version that was put in force.
#[derive(Debug)]
pub struct Activated {
    pub active: Arc<Active>,
    pub restart: Vec<String>,
}

/// Where a document came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub actor: &'a str,
    /// `file`, `api`, `e911`.
    pub source: &'a str,
    pub comment: &'a str,
}

/// The config store and its publication.
#[derive(Debug)]
pub struct Publisher {
    store: Store,
    registry: Arc<Registry>,
    active: watch::Sender<Option<Arc<Active>>>,
    /// One config change at a time: version numbers, and edits that build on what is in force.
    change: Mutex<()>,
}

impl Publisher {
    /// Loads what is in force from the store.
    ///
    /// # Errors
    /// What the database says, or that the stored document no longer compiles.
    pub async fn load(store: Store, registry: Arc<Registry>) -> Result<Arc<Self>, ConfigFault> {
        let this = Arc::new(Self {
            store,
            registry,
            active: watch::Sender::new(None),
            change: Mutex::default(),
        });
        let mut reader = this.store.reader().acquire().await?;
        if let Some(activation) = configs::active(&mut reader).await? {
            let version = configs::load(&mut reader, activation.version)
                .await?
                .ok_or(ConfigFault::NoSuchVersion)?;
            let compiled = check(version.document.clone(), version.version).await?.compiled;
            this.active.send_replace(Some(active(
                activation,
                &version.sha256,
                version.document.into(),
                compiled,
            )));
        }
        Ok(this)
    }

    /// The config in force.
    #[must_use]
    pub fn active(&self) -> Option<Arc<Active>> {
        self.active.borrow().clone()
    }

    #[must_use]
    pub fn watch(&self) -> ActiveWatch {
        self.active.subscribe()
    }

    /// Imports the config file at start: into an empty store, or when the file changed since it was
    /// imported last. True if it was put in force.
    ///
    /// # Errors
    /// [`ConfigFault::Invalid`] with every fault of the file; the store is unchanged then.
    pub async fn import_file(&self, text: &str) -> Result<bool, ConfigFault> {
        let _change = self.change.lock().await;
        let sha256 = ident::sha256_hex(text.as_bytes());
        let (version, known) = {
            let mut reader = self.store.reader().acquire().await?;
            let known = configs::meta(&mut reader, META_FILE_SHA256).await?;
            (configs::next_version(&mut reader).await?, known)
        };
        let checked = check(text.to_owned(), version).await?;
        if known.as_ref() == Some(&sha256) && self.active().is_some() {
            return Ok(false);
        }
        let origin = Origin { actor: "config-file", source: "file", comment: "" };
        let mut tx = self.store.write().await?;
        insert(&mut tx, version, &sha256, text, origin, None).await?;
        let activation = put_in_force(&mut tx, version, &checked.sites, origin, "import").await?;
        configs::set_meta(tx.connection(), META_FILE_SHA256, &sha256).await?;
        tx.audit(changed("config.imported", origin.actor, version, &sha256)).await?;
        tx.commit().await?;
        let active = active(activation, &sha256, text.into(), checked.compiled);
        self.active.send_replace(Some(active));
        Ok(true)
    }

    /// Checks a document and stores it as a new version, not in force.
    ///
    /// # Errors
    /// See [`ConfigFault`]; nothing is stored then.
    pub async fn stage(
        self: &Arc<Self>,
        document: String,
        actor: String,
        comment: String,
        base: Option<u64>,
    ) -> Result<Staged, ConfigFault> {
        let this = Arc::clone(self);
        to_the_end(async move {
            let _change = this.change.lock().await;
            let latest = this.latest().await?;
            if let Some(base) = base
                && base != latest
                && base != this.active().map_or(0, |active| active.version)
            {
                return Err(ConfigFault::Moved { expected: base, found: latest });
            }
            let version = latest + 1;
            let sha256 = ident::sha256_hex(document.as_bytes());
            let compiled = check(document.clone(), version).await?.compiled;
            let origin = Origin { actor: &actor, source: "api", comment: &comment };
            let mut tx = this.store.write().await?;
            insert(&mut tx, version, &sha256, &document, origin, base).await?;
            tx.audit(changed("config.staged", &actor, version, &sha256)).await?;
            tx.commit().await?;
            let restart = this.restart(&compiled.snapshot);
            Ok(Staged { version, sha256, warnings: compiled.warnings, restart })
        })
        .await
    }

    /// Checks a document without storing anything.
    ///
    /// # Errors
    /// [`ConfigFault::Invalid`] with every fault.
    pub async fn validate(&self, document: String) -> Result<Staged, ConfigFault> {
        let version = self.latest().await? + 1;
        let sha256 = ident::sha256_hex(document.as_bytes());
        let compiled = check(document, version).await?.compiled;
        let restart = self.restart(&compiled.snapshot);
        Ok(Staged { version, sha256, warnings: compiled.warnings, restart })
    }

    /// Puts a stored version in force. `action` is `activate` or `rollback`.
    ///
    /// # Errors
    /// See [`ConfigFault`]. [`ConfigFault::Moved`] when the version was built on one that is no
    /// longer in force, so that it would undo somebody else's change (not on rollback).
    pub async fn activate(
        self: &Arc<Self>,
        version: u64,
        actor: String,
        action: &'static str,
    ) -> Result<Activated, ConfigFault> {
        let this = Arc::clone(self);
        to_the_end(async move {
            let _change = this.change.lock().await;
            let stored = {
                let mut reader = this.store.reader().acquire().await?;
                configs::load(&mut reader, version).await?.ok_or(ConfigFault::NoSuchVersion)?
            };
            let in_force = this.active().map_or(0, |active| active.version);
            if action == "activate" && stored.base != 0 && stored.base != in_force {
                return Err(ConfigFault::Moved { expected: stored.base, found: in_force });
            }
            let checked = check(stored.document.clone(), version).await?;
            let restart = this.restart(&checked.compiled.snapshot);
            let origin = Origin { actor: &actor, source: "api", comment: "" };
            let mut tx = this.store.write().await?;
            let activation = put_in_force(&mut tx, version, &checked.sites, origin, action).await?;
            let kind = if action == "rollback" { "config.rolled_back" } else { "config.activated" };
            let event = changed(kind, &actor, version, &stored.sha256).with("before", in_force);
            tx.audit(event).await?;
            tx.commit().await?;
            let text = stored.document.into();
            let active = active(activation, &stored.sha256, text, checked.compiled);
            this.active.send_replace(Some(Arc::clone(&active)));
            Ok(Activated { active, restart })
        })
        .await
    }

    /// Edits the document in force and puts the result in force, as one change. `edit` gets the
    /// document and returns what to answer and the audit event of the edit.
    ///
    /// # Errors
    /// What `edit` refuses, or [`ConfigFault`].
    pub async fn edit<T, E, F>(
        self: &Arc<Self>,
        actor: String,
        comment: String,
        edit: F,
    ) -> Result<(T, Activated), E>
    where
        T: Send + 'static,
        E: From<ConfigFault> + Send + 'static,
        F: FnOnce(&mut Document, &mut EditContext) -> Result<(T, AuditEvent), E> + Send + 'static,
    {
        let this = Arc::clone(self);
        to_the_end(async move {
            let _change = this.change.lock().await;
            let before = this.active().ok_or(ConfigFault::NothingActive)?;
            let (version, highest_site) = {
                let mut reader = this.store.reader().acquire().await.map_err(ConfigFault::from)?;
                let version =
                    configs::next_version(&mut reader).await.map_err(ConfigFault::from)?;
                let highest = sites::highest_id(&mut reader).await.map_err(ConfigFault::from)?;
                (version, highest)
            };
            let text = Arc::clone(&before.document);
            // Parsing and compiling are work for a thread that may block.
            let done = tokio::task::spawn_blocking(move || {
                let mut document = Document::from_yaml(&text).map_err(ConfigFault::Invalid)?;
                let mut context = EditContext { highest_site };
                let (answer, event) = edit(&mut document, &mut context)?;
                let text = document.to_yaml();
                let checked = check_now(&text, version)?;
                Ok::<_, E>((answer, event, text, checked))
            });
            let (answer, event, text, checked) = done.await.map_err(panicked)??;
            let sha256 = ident::sha256_hex(text.as_bytes());
            let restart = this.restart(&checked.compiled.snapshot);
            let origin = Origin { actor: &actor, source: "e911", comment: &comment };
            let stored = async {
                let mut tx = this.store.write().await?;
                insert(&mut tx, version, &sha256, &text, origin, Some(before.version)).await?;
                let activation =
                    put_in_force(&mut tx, version, &checked.sites, origin, "edit").await?;
                let activated = changed("config.activated", &actor, version, &sha256)
                    .with("before", before.version);
                tx.audit(AuditEvent { snapshot: version, ..event }).await?;
                tx.audit(activated).await?;
                tx.commit().await?;
                Ok::<_, ConfigFault>(activation)
            };
            let activation = stored.await?;
            let active = active(activation, &sha256, text.into(), checked.compiled);
            this.active.send_replace(Some(Arc::clone(&active)));
            Ok((answer, Activated { active, restart }))
        })
        .await
    }

    /// Waits for the nodes' acknowledgements of `activation`.
    pub async fn acknowledged(&self, activation: u64) -> Vec<NodeResult> {
        self.registry.wait_applied(activation, ACKNOWLEDGE_TIMEOUT).await
    }

    fn restart(&self, new: &Snapshot) -> Vec<String> {
        self.active().map_or_else(Vec::new, |active| restart_needed(&active.snapshot, new))
    }

    async fn latest(&self) -> Result<u64, ConfigFault> {
        let mut reader = self.store.reader().acquire().await?;
        Ok(configs::latest_version(&mut reader).await?)
    }
}

/// What an edit may know beside the document.
#[derive(Clone, Copy, Debug)]
pub struct EditContext {
    /// Highest site number ever given: numbers are not reused.
    pub highest_site: u32,
}

/// Runs a change as a task of its own, so that it ends even when its caller goes away.
async fn to_the_end<T, E, F>(change: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<ConfigFault> + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    tokio::spawn(change).await.map_err(panicked)?
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn panicked(error: tokio::task::JoinError) -> ConfigFault {
    ConfigFault::Store(StoreError::Corrupt(format!("the change did not end: {error}")))
}

/// A document without fault.
struct Checked {
    compiled: Compiled,
    sites: Vec<Site>,
}

async fn check(document: String, version: u64) -> Result<Checked, ConfigFault> {
    tokio::task::spawn_blocking(move || check_now(&document, version)).await.map_err(panicked)?
}

fn check_now(document: &str, version: u64) -> Result<Checked, ConfigFault> {
    if document.len() > DOCUMENT_MAX_BYTES {
        return Err(ConfigFault::TooLarge);
    }
    let compiled = compile(document, version).map_err(ConfigFault::Invalid)?;
    let raw = Document::from_yaml(document).map_err(ConfigFault::Invalid)?;
    Ok(Checked { compiled, sites: e911::sites(&raw) })
}

fn active(
    activation: Activation,
    sha256: &str,
    document: Arc<str>,
    compiled: Compiled,
) -> Arc<Active> {
    let notify = contacts::from_features(&compiled.snapshot.features);
    Arc::new(Active {
        activation: activation.activation,
        version: activation.version,
        sha256: sha256.to_owned(),
        document,
        snapshot: Arc::new(compiled.snapshot),
        warnings: compiled.warnings,
        notify: Arc::new(notify),
    })
}

async fn insert(
    tx: &mut WriteTx,
    version: u64,
    sha256: &str,
    document: &str,
    origin: Origin<'_>,
    base: Option<u64>,
) -> Result<(), StoreError> {
    let new = NewVersion {
        version,
        sha256,
        document,
        author: origin.actor,
        source: origin.source,
        comment: origin.comment,
        base,
    };
    configs::insert(tx.connection(), new).await
}

async fn put_in_force(
    tx: &mut WriteTx,
    version: u64,
    sites: &[Site],
    origin: Origin<'_>,
    action: &str,
) -> Result<Activation, StoreError> {
    let activation = configs::activate(tx.connection(), version, origin.actor, action).await?;
    sites::project(tx.connection(), sites, version).await?;
    Ok(activation)
}

fn changed(kind: &str, actor: &str, version: u64, sha256: &str) -> AuditEvent {
    event(kind, Severity::Info, actor, version).with("version", version).with("sha256", sha256)
}
