//! The record of a deployment: what is deployed, and each step with its verdict. It is written before and after each step.

use serde::{Deserialize, Serialize};

use crate::color::Color;

/// A step of a deployment. Each can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Checks images, memory, disk and secrets.
    Prepare,
    /// Migrates the schema, which the old release continues to use.
    Migrate,
    /// Starts the new color and waits until it reports the expected release.
    Start,
    /// Sends requests to the new color's sockets.
    Smoke,
    /// Sends it a tenth of the requests.
    Canary10,
    /// Sends it half of the requests.
    Canary50,
    /// Sends it all requests.
    Full,
    /// Replaces the worker and the ACME client.
    Follow,
    /// Keeps the old color running, for a fast return.
    Warm,
    /// Removes the old color.
    Retire,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Self; 10] = [
        Self::Prepare,
        Self::Migrate,
        Self::Start,
        Self::Smoke,
        Self::Canary10,
        Self::Canary50,
        Self::Full,
        Self::Follow,
        Self::Warm,
        Self::Retire,
    ];

    /// The step after this one.
    pub fn next(self, way: Way) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step > self && way.has(*step))
    }

    /// How many of ten slots lead to the new color from this step on.
    pub const fn slots(self) -> u8 {
        match self {
            Self::Prepare | Self::Migrate | Self::Start | Self::Smoke => 0,
            Self::Canary10 => 1,
            Self::Canary50 => 5,
            Self::Full | Self::Follow | Self::Warm | Self::Retire => 10,
        }
    }

    /// A description for people.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Prepare => "checks memory, disk, secrets and images",
            Self::Migrate => "migrates the schema",
            Self::Start => "starts the new color",
            Self::Smoke => "tests the new color through its sockets",
            Self::Canary10 => "sends 10 % of the requests to the new color",
            Self::Canary50 => "sends 50 % of the requests to the new color",
            Self::Full => "sends all requests to the new color",
            Self::Follow => "replaces the worker",
            Self::Warm => "keeps the old color for a fast rollback",
            Self::Retire => "removes the old color",
        }
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new release serves all requests.
    Succeeded,
    /// A step failed, and the old release serves again.
    RolledBack,
    /// It stopped before the new release served a request.
    Failed,
}

/// How a release gets to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The first release: nothing serves before it.
    First,
    /// A second color, and a canary.
    Canary,
    /// A second color without a canary: the release has served before.
    Return,
    /// The color that serves is replaced. Requests fail meanwhile.
    InPlace,
}

impl Way {
    /// Whether the step belongs to it.
    pub const fn has(self, step: Step) -> bool {
        match self {
            Self::Canary => true,
            // The start includes the migration.
            Self::First => !matches!(
                step,
                Step::Migrate | Step::Canary10 | Step::Canary50 | Step::Warm | Step::Retire
            ),
            Self::Return => {
                !matches!(step, Step::Migrate | Step::Canary10 | Step::Canary50 | Step::Warm)
            }
            Self::InPlace => !matches!(
                step,
                Step::Canary10 | Step::Canary50 | Step::Full | Step::Warm | Step::Retire
            ),
        }
    }
}

/// One pass of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step.
    pub step: Step,
    /// Seconds since 1970.
    pub started: u64,
    /// Seconds since 1970; absent while it runs, or if it was interrupted.
    pub ended: Option<u64>,
    /// The observation or decision, in words.
    pub result: Option<String>,
}

/// The images of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// Reference or id of the gateway's image.
    pub gateway: String,
    /// The same of the shortener's.
    pub shortener: String,
    /// The same of the bundle with the Compose files.
    pub bundle: String,
    /// The same of the ACME client's, which only a server that terminates TLS needs.
    #[serde(default)]
    pub acme: Option<String>,
    /// The same of the backup sidecar's, which only a server with backups needs.
    #[serde(default)]
    pub backup: Option<String>,
}

impl Images {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        let always = [&self.gateway, &self.shortener, &self.bundle].into_iter();
        always.chain(&self.acme).chain(&self.backup)
    }

    /// The services beside the worker for which the release has an image.
    pub fn sidecars(&self) -> Vec<&'static str> {
        let has = [("acme", &self.acme), ("backup", &self.backup)];
        has.into_iter().filter(|(_, image)| image.is_some()).map(|(name, _)| name).collect()
    }
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the record, and of the release's folder.
    pub id: String,
    /// The release that both programs must report.
    pub release: String,
    /// The color that gets the release.
    pub color: Color,
    /// Its images.
    pub images: Images,
    /// The record of the release that served before; absent for the first one.
    pub previous: Option<String>,
    /// The user who started it, as sudo names it.
    pub by: String,
    /// How the release gets to serve.
    pub way: Way,
    /// Seconds since 1970.
    pub started: u64,
    /// Seconds since 1970.
    pub ended: Option<u64>,
    /// All passes of all steps.
    pub steps: Vec<StepRecord>,
    /// Why it returns to the old release, from the moment of that decision on.
    pub reverting: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Hash of the rendered configuration, for drift.
    pub config: Option<String>,
    /// For the first release of a new server: options with which the database is restored before it starts; absent once
    /// that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Vec<String>>,
}

impl Record {
    /// The step that ran last, or the first one.
    pub fn step(&self) -> Step {
        self.steps.last().map_or(Step::Prepare, |step| step.step)
    }

    /// Notes that a step begins.
    pub fn begin(&mut self, step: Step, now: u64) {
        self.steps.push(StepRecord { step, started: now, ended: None, result: None });
    }

    /// Notes the result of the step that runs.
    pub fn end_step(&mut self, result: &str, now: u64) {
        if let Some(last) = self.steps.last_mut() {
            last.ended = Some(now);
            last.result = Some(result.to_owned());
        }
    }

    /// Notes the end of the deployment.
    pub fn finish(&mut self, outcome: Outcome, now: u64) {
        self.outcome = Some(outcome);
        self.ended = Some(now);
    }

    /// Whether the new release has served a visitor's request.
    pub fn has_served(&self) -> bool {
        self.way == Way::InPlace || self.steps.iter().any(|step| step.step.slots() > 0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(steps: &[Step]) -> Record {
        let images = Images {
            gateway: "g".to_owned(),
            shortener: "s".to_owned(),
            bundle: "b".to_owned(),
            acme: None,
            backup: None,
        };
        let mut record = Record {
            id: "r2".to_owned(),
            release: "v2".to_owned(),
            color: Color::Green,
            images,
            previous: Some("r1".to_owned()),
            by: "ops".to_owned(),
            way: Way::Canary,
            started: 100,
            ended: None,
            steps: Vec::new(),
            reverting: None,
            outcome: None,
            config: None,
            restore: None,
        };
        for step in steps {
            record.begin(*step, 100);
        }
        record
    }

    #[test]
    fn steps_follow_each_other_and_never_take_slots_away() {
        let mut step = Step::Prepare;
        let mut seen = vec![step];
        while let Some(next) = step.next(Way::Canary) {
            assert!(next.slots() >= step.slots());
            step = next;
            seen.push(step);
        }
        assert_eq!(seen, Step::ALL);
    }

    #[test]
    fn each_way_checks_starts_and_tests_the_release_and_replaces_the_worker() {
        for way in [Way::First, Way::Canary, Way::Return, Way::InPlace] {
            assert!(
                [Step::Prepare, Step::Start, Step::Smoke, Step::Follow]
                    .into_iter()
                    .all(|step| way.has(step))
            );
        }
        assert!(!Way::Return.has(Step::Migrate));
        assert_eq!(Step::Smoke.next(Way::InPlace), Some(Step::Follow));
        assert_eq!(Step::Follow.next(Way::First), None);
    }

    #[test]
    fn record_survives_its_file() {
        let mut record = record(&[Step::Prepare, Step::Canary10]);
        record.end_step("200 redirects", 120);
        record.finish(Outcome::RolledBack, 130);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert!(text.contains("\"canary10\"") && text.contains("\"rolled-back\""), "{text}");
    }

    #[test]
    fn release_has_served_once_it_had_a_slot() {
        assert!(!record(&[Step::Start, Step::Smoke]).has_served());
        assert!(record(&[Step::Canary10]).has_served());
        assert!(Record { way: Way::InPlace, ..record(&[]) }.has_served());
    }
}
