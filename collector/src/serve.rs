//! All of it, running: receives a configuration, hands on a collector that listens until it is told to stop.

mod data;
pub(crate) mod first_token;
mod supervise;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::api;
use crate::authority::{Authority, AuthorityError, SERVER_LIFE};
use crate::clock::now_ms;
use crate::config::{Config, ConfigError};
use crate::confine;
use crate::listen::{self, Clients, Port, ServerCertificate};
use crate::policy::{Current, Fleets, PolicyError, Reloaded};
use crate::rate::Rate;
use crate::replace::{self, Launcher};
use crate::store::{Store, StoreError};

/// What the handlers of both interfaces share.
#[derive(Debug)]
pub struct App {
    /// The database.
    pub store: Store,
    /// The configuration, with the addresses that are really listened on.
    pub config: Config,
    /// The certificate authority.
    pub authority: Authority,
    /// The check of client certificates.
    pub clients: Clients,
    /// The policies that hold now.
    pub policies: Current,
    /// The collector's own copies of all manifests.
    pub shelf: crate::image::Shelf,
    /// Who starts the replacers' commands.
    pub launcher: Launcher,
    /// The replacers' commands that run.
    pub running: replace::Running,
    /// Somebody has something new to judge.
    pub wake: Notify,
    /// How many refusals the ledger takes.
    pub refusals: Arc<Rate>,
    /// Since when this process listens: before that, silence means nothing.
    pub listening_since: Instant,
}

impl App {
    /// The fleets and their policies, as of now.
    pub fn fleets(&self) -> Arc<Fleets> {
        self.policies.fleets()
    }

    /// Since when this process listens, by a clock that says `now_ms` now, in milliseconds since 1970.
    ///
    /// It moves with the clock: what was heard before the clock was set forward is not taken for fresh, and after it was
    /// set back nobody waits for the time to come round again.
    pub fn listening_since_ms(&self, now_ms: i64) -> i64 {
        let listening = self.listening_since.elapsed().as_millis();
        now_ms.saturating_sub(i64::try_from(listening).unwrap_or(i64::MAX))
    }

    /// When a certificate that is issued now ends.
    pub fn certificate_until_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(
            i64::try_from(self.config.certificate_life.as_millis()).unwrap_or(i64::MAX),
        )
    }

    /// Where agents reach this collector: what join tokens say.
    pub fn agents_url(&self) -> String {
        data::url(&self.config, self.config.agents)
    }
}

/// A collector that runs.
#[derive(Debug)]
pub struct Collector {
    /// What its handlers share.
    pub app: Arc<App>,
    /// What it told its operator when it started, line by line.
    pub announcement: Vec<String>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Why a collector cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory cannot be used.
    #[error("use the data directory {}", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else may write to the data directory.
    #[error("others may use the data directory {}: `chmod 700` it after a look at what is in it", .0.display())]
    DataNotPrivate(PathBuf),
    /// Another collector uses it.
    #[error("another collector uses the data directory {}", .0.display())]
    InUse(PathBuf),
    /// There is no certificate authority.
    #[error("have a certificate authority")]
    Authority(#[from] AuthorityError),
    /// There is no database.
    #[error("have a database")]
    Store(#[from] StoreError),
    /// There is no place for manifests.
    #[error("have a place for manifests")]
    Shelf(#[from] crate::image::ShelfError),
    /// An address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The fleets file is refused.
    #[error("use the fleets file")]
    Policy(#[from] PolicyError),
    /// The authority's certificate cannot check clients.
    #[error("check client certificates")]
    Clients(#[from] rustls::server::VerifierBuilderError),
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
    /// There is no runtime or no signal handler.
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
}

impl ServeError {
    /// The exit code, after sysexits.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServeError::Authority(AuthorityError::Key(ConfigError::Read { .. })) => 77,
            ServeError::Authority(AuthorityError::Key(_)) => 78,
            ServeError::DataNotPrivate(_) | ServeError::Policy(_) => 78,
            ServeError::Data { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                77
            }
            ServeError::Data { .. } | ServeError::Authority(AuthorityError::Write { .. }) => 73,
            ServeError::InUse(_) | ServeError::Listen { .. } => 75,
            ServeError::Store(_) | ServeError::Shelf(_) => 74,
            ServeError::Authority(_)
            | ServeError::Clients(_)
            | ServeError::Tls(_)
            | ServeError::Runtime(_) => 70,
        }
    }
}

/// Refusals that the ledger takes at once, and then one every [`REFUSALS_EVERY`]: a peer must not be able to fill it.
const REFUSALS: u32 = 120;
/// See [`REFUSALS`].
const REFUSALS_EVERY: Duration = Duration::from_secs(2);
/// How often orders, silence and the fleets file are looked at.
const TICK: Duration = Duration::from_secs(1);
/// After a report with news the judge waits this long for more of them.
const GATHER: Duration = Duration::from_millis(20);

/// Runs a collector until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot run.
pub fn run(config: Config) -> Result<(), ServeError> {
    start_log();
    raise_descriptor_limit();
    // Confined is a thread and what it starts: all but the launcher.
    let launcher = Launcher::start().map_err(ServeError::Runtime)?;
    data::make(&config.data)?;
    confine::write_only_below(&config.data);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    runtime.block_on(async {
        let collector = Collector::start(config, launcher).await?;
        for line in &collector.announcement {
            println!("{line}");
        }
        supervise::ready();
        until_told_to_stop().await.map_err(ServeError::Runtime)?;
        tracing::info!("stopping");
        supervise::stopping();
        collector.stop().await;
        Ok(())
    })
}

/// Checks the fleets file that a configuration names.
///
/// # Errors
/// It is refused.
pub fn check_fleets(config: &Config) -> Result<Fleets, ServeError> {
    Ok(Fleets::load(&config.fleets)?)
}

impl Collector {
    /// Prepares the data directory and listens.
    ///
    /// # Errors
    /// Something that it needs cannot be had.
    pub async fn start(mut config: Config, launcher: Launcher) -> Result<Self, ServeError> {
        listen::install_crypto();
        let lock = data::prepare(&config.data)?;
        let policies = Current::open(config.fleets.clone())?;
        let agents = bind(&mut config.agents).await?;
        let operators = bind(&mut config.operators).await?;
        let now_ms = now_ms();
        let authority = Authority::open(&config.data, now_ms)?;
        let clients = Clients::of(authority.certificate())?;
        let names = data::names(&config);
        let certificate = ServerCertificate::new(authority.server(&names, now_ms)?);
        let store = data::open_store(&config.data)?;
        let shelf = crate::image::Shelf::of(&config.data)?;
        let first_token = first_token::ensure(&store, &config.data, now_ms).await?;
        data::leave_address(&config)?;
        let announcement = data::announce(&config, first_token);
        let app = Arc::new(App {
            store,
            authority,
            clients,
            policies,
            shelf,
            launcher,
            running: replace::Running::default(),
            wake: Notify::new(),
            refusals: Arc::new(Rate::new(REFUSALS, REFUSALS_EVERY)),
            listening_since: Instant::now(),
            config,
        });
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let agents_tls = listen::agents_tls(Arc::clone(&certificate), &app.clients)?;
        tasks.spawn(listen::serve(
            Port::Agents,
            agents,
            agents_tls,
            api::agents::router(Arc::clone(&app)),
            stopping.clone(),
        ));
        let operators_tls = listen::operators_tls(Arc::clone(&certificate))?;
        let operators_router = api::operators_router(Arc::clone(&app));
        tasks.spawn(listen::serve(
            Port::Operators,
            operators,
            operators_tls,
            operators_router,
            stopping.clone(),
        ));
        tasks.spawn(judge(Arc::clone(&app), stopping.clone()));
        tasks.spawn(renew_server_certificate(
            Arc::clone(&app),
            certificate,
            names,
            stopping,
        ));
        // Held for as long as there are tasks.
        tasks.spawn({
            let mut stopping = stop.subscribe();
            async move {
                let _ = stopping.wait_for(|stop| *stop).await;
                drop(lock);
            }
        });
        Ok(Collector {
            app,
            announcement,
            stop,
            tasks,
        })
    }

    /// Lets open requests end, finishes what is queued, and closes the database.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        self.app.running.end().await;
        self.app.store.close().await;
    }
}

async fn bind(address: &mut SocketAddr) -> Result<TcpListener, ServeError> {
    let asked = *address;
    let listen = |source| ServeError::Listen {
        address: asked,
        source,
    };
    let listener = TcpListener::bind(asked).await.map_err(listen)?;
    *address = listener.local_addr().map_err(listen)?;
    Ok(listener)
}

/// Looks at the fleets file, and lets the judge look at the store: every second, and soon after news.
async fn judge(app: Arc<App>, mut stopping: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut look, mut gather) = (false, false);
    let mut supervisor = supervise::Supervisor::new();
    loop {
        tokio::select! {
            _ = tick.tick() => look = true,
            () = app.wake.notified() => gather = true,
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        if std::mem::take(&mut look) {
            reload(&app).await;
        }
        if std::mem::take(&mut gather) {
            tokio::time::sleep(GATHER).await;
        }
        if let Err(error) = replace::tick(&app, now_ms()).await {
            tracing::error!(
                error = api::error_chain(&error),
                "the store could not be judged; it is tried again"
            );
        }
        // A store that answers with an error answers: a full disk is not mended by starting again.
        supervisor.alive();
    }
}

async fn reload(app: &App) {
    let reloaded = app.policies.reload();
    if let Err(error) = replace::note_policy(app, &reloaded).await {
        tracing::error!(
            error = api::error_chain(&error),
            "other policies are not in the ledger"
        );
    }
    match reloaded {
        Reloaded::Same => {}
        Reloaded::Changed(digest) => tracing::info!(%digest, "other policies hold from now on"),
        Reloaded::Refused(error) => {
            tracing::error!(
                error = api::error_chain(&error),
                "the fleets file is refused; what held before holds on"
            );
        }
    }
}

async fn renew_server_certificate(
    app: Arc<App>,
    certificate: Arc<ServerCertificate>,
    names: Vec<String>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SERVER_LIFE / 3) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        match app.authority.server(&names, now_ms()) {
            Ok(next) => certificate.replace(next),
            Err(error) => tracing::error!(
                error = api::error_chain(&error),
                "the server certificate was not renewed"
            ),
        }
    }
}

async fn until_told_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    // The fleets file is looked at every second anyway; without this SIGHUP would end the process.
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => {}
        }
    }
}

/// As many connections as the system allows: the default of 1024 is far below a fleet.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files was not raised");
    }
}

fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("DRIFTMARK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
