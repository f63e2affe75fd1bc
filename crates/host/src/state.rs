//! The files of the installation, and the records that they name.

use std::{
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    compose::Compose,
    config::HostConfig,
    error::HostError,
    files,
    installation::{Installation, compose_variables},
    metrics,
    output::say,
    paths,
    record::{Images, Record},
    settings::Settings,
};

/// Everything that a verb reads.
pub struct State {
    /// Settings of the server.
    pub config: HostConfig,
    /// The releases that run.
    pub installation: Installation,
}

impl State {
    /// Reads both files.
    pub fn read() -> Result<Self, HostError> {
        let installation = files::read_json(format!("{}/installation.json", paths::STATE))?;
        Ok(Self { config: HostConfig::read()?, installation: installation.unwrap_or_default() })
    }

    /// Writes the installation, and the variables that Compose derives from it.
    pub fn write(&self) -> Result<(), HostError> {
        files::write_json(format!("{}/installation.json", paths::STATE), &self.installation)?;
        let installation = &self.installation;
        let mut records: Vec<(String, Images)> = Vec::new();
        for id in installation.releases() {
            if let Some(record) = files::read_record(id)? {
                records.push((id.to_owned(), record.images));
            }
        }
        let text = compose_variables(installation, &self.config, &settings()?, |id| {
            records.iter().find(|(name, _)| name == id).map(|(_, images)| images)
        });
        files::write(format!("{}/compose.env", paths::STATE), &text)
    }

    /// The deployment that has not ended.
    pub fn open(&self) -> Result<Option<Record>, HostError> {
        let Some(id) = &self.installation.open else { return Ok(None) };
        Ok(files::read_record(id)?.filter(|record| record.outcome.is_none()))
    }

    /// The record of the release that serves.
    pub fn current(&self) -> Result<Option<Record>, HostError> {
        let Some(id) = &self.installation.current else { return Ok(None) };
        files::read_record(id)
    }

    /// Restores the database with the script of a release, which explains its errors itself. It notes the services that it
    /// stops in the file `stopped`.
    pub fn restore(
        &self,
        id: &str,
        options: &[String],
        stopped: Option<&str>,
    ) -> Result<(), HostError> {
        let script = format!("{}/{id}/deploy/host/restore", paths::RELEASES);
        let status = Command::new("bash")
            .arg(&script)
            .args(options)
            .envs(self.compose(id)?.environment())
            .envs(stopped.map(|path| ("LINNET_RESTORE_STOPPED", path)))
            .status()
            .map_err(|error| HostError::File(script.into(), error))?;
        if status.success() {
            return Ok(());
        }
        Err(HostError::Step(
            "the restore did not complete; its messages above say what to do".to_owned(),
        ))
    }

    /// Whether a restore has stopped the service and has not started it again.
    pub fn is_restore_open(&self) -> bool {
        Path::new(&stopped_file()).exists()
    }

    /// Compose with the files of a release.
    pub fn compose(&self, id: &str) -> Result<Compose, HostError> {
        Compose::of_release(id, &self.config)
    }
}

/// The file in which `deploy/host/restore` notes the services that it has stopped, one a line.
pub fn stopped_file() -> String {
    format!("{}/restore", paths::STATE)
}

/// The operator's settings for Compose.
pub fn settings() -> Result<Settings, HostError> {
    Ok(Settings::parse(&files::read(paths::SETTINGS)?.unwrap_or_default()))
}

/// Writes a record, and the metrics that derive from it.
pub fn write_record(record: &Record) -> Result<(), HostError> {
    files::write_json(files::record_path(&record.id), record)?;
    // Metrics must not end a deployment.
    if let Err(error) = metrics::write_deployment(record) {
        say!("warning: {error}");
    }
    Ok(())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
