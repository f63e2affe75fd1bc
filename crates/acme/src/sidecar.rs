//! The process: installs a placeholder, then orders and renews until it is stopped.
//!
//! The schedule is read again at least once a minute, with the wall clock: a machine that slept or whose clock was
//! corrected continues correctly, and a name that was added is ordered within a minute.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use linnet_platform::{
    backoff::jittered,
    clock::Clock,
    lifecycle::Lifecycle,
    server::{StartError, bind, exit_result, serve_admin},
};
use linnet_telemetry::{AdminState, Telemetry};

use crate::{
    authority::{Authority, renewal_window},
    failure::AttemptError,
    in_use::InUse,
    metrics,
    names::{Names, listed},
    order::{Wish, order},
    placeholder::placeholder,
    probe::{ChallengeFile, ProbeResult, probe},
    readiness::AcmeReadiness,
    release::SERVICE,
    schedule::{Cause, Decision, Situation},
    settings::{AcmeSettings, Settings},
    snapshot::Shared,
    state::{self, State},
    store::{Issued, Store},
};

/// Longest wait at shutdown for a running scrape, in seconds.
const ADMIN_GRACE_S: u64 = 2;

/// Runs until the lifecycle ends. Needs an actix runtime.
pub(crate) async fn run(
    settings: Settings,
    telemetry: &Telemetry,
    lifecycle: Lifecycle,
) -> Result<(), StartError> {
    let (admin, retire_admin) = bind(&settings.acme.admin_listen)?.split();
    let store = Store::open(&settings.acme.certificates)
        .map_err(StartError::setting("acme.certificates"))?;
    let authority = Authority::new(&settings.acme).map_err(StartError::setting("acme.ca_file"))?;
    let shared = Shared::default();
    metrics::register(&telemetry.meter(), &shared, Clock::System);
    let readiness = AcmeReadiness { shared: shared.clone(), lifecycle: lifecycle.clone() };
    let admin_state = AdminState {
        registry: telemetry.registry().clone(),
        readiness: Arc::new(readiness),
        service: SERVICE,
    };
    tracing::info!(
        admin = %settings.acme.admin_listen,
        directory = settings.acme.directory_url(),
        release = SERVICE.release,
        "acme starting"
    );
    let sidecar = Sidecar::new(settings.acme, store, authority, shared);
    let draining = lifecycle.draining();
    lifecycle.spawn_critical("renewal", async move {
        // An order that is interrupted here is abandoned: nothing of it has been installed.
        draining.run_until_cancelled_owned(sidecar.run()).await;
    });
    let stop = {
        let lifecycle = lifecycle.clone();
        tokio::spawn(async move { lifecycle.run_until_stopping(Duration::ZERO, || {}).await })
    };
    let result = serve_admin(&lifecycle, admin_state, admin, ADMIN_GRACE_S)?.await;
    lifecycle.begin_drain();
    stop.abort();
    retire_admin.retire();
    result?;
    exit_result(&lifecycle)
}

struct Sidecar {
    settings: AcmeSettings,
    store: Store,
    authority: Authority,
    shared: Shared,
    state: State,
    /// The names of the last time at which the names file was valid.
    wanted: Names,
}

impl Sidecar {
    fn new(settings: AcmeSettings, store: Store, authority: Authority, shared: Shared) -> Self {
        // Validation has read the names.
        let wanted = settings.wanted_names().unwrap_or_default();
        let state = store.read_private(state::FILE).unwrap_or_else(|error| {
            // Without it, only the waits after failures are forgotten.
            tracing::warn!(error = &error as &dyn std::error::Error, "state not read");
            None
        });
        let state = state.unwrap_or_default();
        Self { settings, store, authority, shared, state, wanted }
    }

    async fn run(mut self) {
        let _lock = self.wait_for_lock().await;
        ChallengeFile::sweep(&self.settings.challenges);
        if let Err(error) = self.install_placeholder() {
            self.fail(error);
        }
        loop {
            self.read_names();
            self.step().await;
            self.publish();
            // Installations that were started together do not act in the same second.
            tokio::time::sleep(jittered(self.settings.tick())).await;
        }
    }

    /// Waits until no other process uses the folder, for example during a deployment.
    async fn wait_for_lock(&self) -> Option<std::fs::File> {
        loop {
            match self.store.lock() {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => tracing::info!("certificates are locked by another process; waiting"),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "lock failed");
                }
            }
            tokio::time::sleep(self.settings.tick()).await;
        }
    }

    fn install_placeholder(&mut self) -> Result<(), AttemptError> {
        if self.store.current()?.is_none() {
            self.store.install(&placeholder(&self.wanted)?)?;
            tracing::info!("placeholder installed until the first certificate");
        }
        self.publish();
        Ok(())
    }

    fn read_names(&mut self) {
        match self.settings.wanted_names() {
            Ok(names) if !names.is_empty() => {
                if names != self.wanted {
                    tracing::info!(names = listed(&names), "names changed");
                }
                self.wanted = names;
            }
            Ok(_) => tracing::warn!("names file has no name; the previous names stay"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "names file not read; the previous names stay");
            }
        }
    }

    /// Does what is due now.
    async fn step(&mut self) {
        let installed = match self.store.current() {
            Ok(installed) => installed,
            Err(error) => return self.fail(error.into()),
        };
        let in_use = InUse::new(installed, self.settings.directory_url());
        let timeout = self.settings.order_timeout();
        // The limits of single requests end at their heads.
        if tokio::time::timeout(timeout, self.refresh_window(&in_use)).await.is_err() {
            tracing::warn!("renewal information not received in time");
        }
        let situation = self.situation(&in_use);
        if let Decision::Order(cause) = situation.decide() {
            let attempt = tokio::time::timeout(timeout, self.attempt(cause, &in_use));
            let result = attempt.await.unwrap_or(Err(AttemptError::TimedOut(timeout)));
            match result {
                Ok(done) => self.succeed(&done),
                Err(error) => self.fail(error),
            }
        }
    }

    fn situation<'a>(&'a self, in_use: &'a InUse) -> Situation<'a> {
        in_use.situation(Utc::now(), &self.wanted, &self.state, self.settings.retry())
    }

    /// Asks the CA twice a day when it suggests to renew. A failure has no effect: the next one is due soon enough.
    async fn refresh_window(&mut self, in_use: &InUse) {
        let (Some(certificate), true) = (&in_use.certificate, in_use.is_of_this_ca) else { return };
        let now = Utc::now();
        let interval = TimeDelta::from_std(self.settings.renewal_info()).unwrap_or(TimeDelta::MAX);
        let is_recent =
            self.state.window_checked.is_some_and(|at| at <= now && now - at < interval);
        if is_recent {
            return;
        }
        self.state.window_checked = Some(now);
        let window = match self.authority.stored_account(&self.store).await {
            Ok(Some(account)) => renewal_window(&account, certificate, in_use.version).await,
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match window {
            Ok(window) => {
                if window != self.state.window
                    && let Some(window) = &window
                {
                    tracing::info!(start = %window.start, end = %window.end, "renewal suggested");
                }
                self.state.window = window;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "renewal information not available");
            }
        }
        self.save();
    }

    /// Orders and installs a certificate. Returns the sentences about names that had to be left out.
    async fn attempt(&self, cause: Cause, in_use: &InUse) -> Result<Done, AttemptError> {
        // Before the CA is involved: what cannot be stored must not be ordered.
        self.store.check_room()?;
        self.store.write_private(state::FILE, &self.state)?;
        let reachable = self.reachable().await?;
        let names = self.situation(in_use).names_to_order(cause, &reachable.usable);
        let Some(names) = names else {
            return Err(AttemptError::Dns(reachable.problems.join("; ")));
        };
        tracing::info!(cause = ?cause, names = listed(&names), "order due");
        let issued = match self.order_once(&names, in_use).await {
            Err(error) if error.is_unknown_account() => {
                tracing::warn!("the CA does not know the account; a new one is created");
                self.authority.forget_account(&self.store)?;
                self.order_once(&names, in_use).await
            }
            result => result,
        }?;
        let version = self.store.install(&issued)?;
        Ok(Done { version, names, problems: reachable.problems })
    }

    async fn reachable(&self) -> Result<ProbeResult, AttemptError> {
        let settings = &self.settings;
        if !settings.probe {
            let usable = self.wanted.clone();
            return Ok(ProbeResult { usable, problems: Vec::new() });
        }
        let address = Some(settings.probe_address.as_str()).filter(|address| !address.is_empty());
        let result = probe(&settings.challenges, address, &self.wanted).await;
        result.map_err(|error| AttemptError::Challenge(settings.challenges.clone(), error))
    }

    async fn order_once(&self, names: &Names, in_use: &InUse) -> Result<Issued, AttemptError> {
        let settings = &self.settings;
        let account = self.authority.account(&self.store).await?;
        let mut wish = Wish {
            names,
            profile: &settings.profile,
            replaces: in_use.replaced(&account, names).await,
            challenges: &settings.challenges,
            directory: settings.directory_url(),
            is_trusted: !settings.is_staging(),
            timeout: settings.order_timeout(),
        };
        let replaces = wish.replaces.is_some();
        tracing::info!(names = listed(names), replaces, "certificate ordered");
        match order(&account, &wish).await {
            Err(error) if error.is_already_replaced() => {
                wish.replaces = None;
                order(&account, &wish).await
            }
            result => result,
        }
    }

    fn succeed(&mut self, done: &Done) {
        let now = Utc::now();
        self.state.record_success(now, rand::random());
        self.shared.with(|snapshot| snapshot.orders += 1);
        tracing::info!(
            version = done.version,
            names = listed(&done.names),
            "certificate installed"
        );
        if done.problems.is_empty() {
            self.save();
        } else {
            // The others have their certificate, and these are tried again.
            self.fail(AttemptError::Dns(done.problems.join("; ")));
        }
    }

    fn fail(&mut self, error: AttemptError) {
        let failure = error.into_failure(Utc::now(), &self.wanted);
        self.shared.with(|snapshot| *snapshot.failures.entry(failure.reason).or_default() += 1);
        self.state.record_failure(failure, self.settings.retry(), rand::random());
        if let Some(failure) = &self.state.last_failure {
            tracing::error!(
                reason = failure.reason.name(),
                error = failure.detail,
                failures = self.state.failures,
                next_attempt = self.state.next_attempt.map(|next| next.to_rfc3339()),
                "certificate not ordered"
            );
        }
        self.save();
    }

    /// Stores the state. If that fails, the waits are forgotten at the next start only.
    fn save(&self) {
        if let Err(error) = self.store.write_private(state::FILE, &self.state) {
            tracing::error!(error = &error as &dyn std::error::Error, "state not stored");
        }
    }

    fn publish(&self) {
        let installed = match self.store.current() {
            Ok(installed) => installed,
            Err(error) => {
                self.shared.with(|snapshot| snapshot.storage_error = Some(error.to_string()));
                return;
            }
        };
        let in_use = InUse::new(installed, self.settings.directory_url());
        let renewal = self.situation(&in_use).renewal();
        self.shared.with(|snapshot| {
            snapshot.storage_error = None;
            snapshot.is_installed = in_use.is_installed;
            snapshot.is_trusted = in_use.certificate.is_some();
            snapshot.missing_names = match &in_use.certificate {
                Some(certificate) => self.wanted.difference(&certificate.names).count(),
                None => self.wanted.len(),
            };
            snapshot.certificate = in_use.certificate;
            snapshot.renewal = renewal;
            snapshot.state = self.state.clone();
        });
    }
}

/// A finished order.
struct Done {
    version: u64,
    names: Names,
    problems: Vec<String>,
}
