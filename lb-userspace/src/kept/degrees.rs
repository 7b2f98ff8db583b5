//! On disk: what of backends' weights was in force by degrees, so that a crash gives no slow backend
//! its weight back, and no draining one new flows.

use std::{net::IpAddr, path::Path, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, file};
use crate::health::{
    agent::Wish,
    event::Cause,
    outlier::{Demotion, Rung},
};

/// What is older says nothing of the present, in milliseconds.
const STALE: u64 = 5 * 60 * 1000;

/// What is kept of one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Degree {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// Its address: of another one, nothing is known.
    pub address: IpAddr,
    /// How far it is demoted.
    pub demoted: Option<Demoted>,
    /// The last word of its agent.
    pub agent: Option<LastWord>,
}

/// How far a backend is demoted; times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demoted {
    /// Where on the ladder it is.
    pub rung: Rung,
    /// Why.
    pub cause: Option<Cause>,
    /// Until when it is held there.
    pub held_until_ms: u64,
    /// Whether it has been getting weight back.
    pub rising: bool,
    /// How often it lost weight again.
    pub relapses: u32,
}

impl Demoted {
    /// What a monitor says, by the moment at which its time began.
    #[must_use]
    pub fn of(demotion: &Demotion, began_ms: u64) -> Self {
        Self {
            rung: demotion.rung,
            cause: demotion.cause,
            held_until_ms: began_ms + demotion.held.as_millis() as u64,
            rising: demotion.rising,
            relapses: demotion.relapses,
        }
    }

    /// The same for a monitor whose time begins at another moment.
    #[must_use]
    pub fn demotion(&self, began_ms: u64) -> Demotion {
        let held = self.held_until_ms.saturating_sub(began_ms);
        Demotion {
            rung: self.rung,
            cause: self.cause,
            held: std::time::Duration::from_millis(held),
            rising: self.rising,
            relapses: self.relapses,
        }
    }
}

/// What an agent said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWord {
    /// What its backend asks for.
    pub wish: Wish,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    at_ms: u64,
    degrees: Vec<Degree>,
}

fn path(directory: &Path) -> PathBuf {
    directory.join("degrees.json")
}

/// Keeps all of them.
///
/// # Errors
/// Where the file cannot be written; the one before is then left.
pub fn write(directory: &Path, at_ms: u64, degrees: Vec<Degree>) -> Result<(), Error> {
    file::write_json(&path(directory), &Contents { at_ms, degrees })
}

/// Reads them again. What is older than some minutes is passed over; what was wrong with the file is
/// added to `told`.
#[must_use]
pub fn read(directory: &Path, now_ms: u64, told: &mut Vec<String>) -> Vec<Degree> {
    let mut wrong = Vec::new();
    let contents: Option<Contents> = file::read_or_set_aside(&path(directory), now_ms, &mut wrong);
    told.extend(wrong.into_iter().map(|what| {
        format!("demotions and what agents said are lost, backends have their weights: {what}")
    }));
    let fresh = |of: &Contents| now_ms.saturating_sub(of.at_ms) <= STALE;
    contents
        .filter(fresh)
        .map_or_else(Vec::new, |of| of.degrees)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::health::{agent::Admin, event::By};

    fn degrees() -> Vec<Degree> {
        let demotion = Demotion {
            rung: Rung::Quarter,
            cause: Some(Cause::Slow {
                by: By::Traffic,
                latency: Duration::from_millis(60),
                peers: Duration::from_millis(20),
                ratio: 3.0,
                samples: 72,
                over: Duration::from_secs(24),
            }),
            held: Duration::from_secs(90),
            rising: false,
            relapses: 2,
        };
        let wish = Wish {
            percent: 40,
            admin: Admin::Drain,
            note: Some("new kernel".to_owned()),
            ..Wish::default()
        };
        vec![
            Degree {
                service: "web".to_owned(),
                backend: "b1".to_owned(),
                address: "10.0.0.1".parse().unwrap(),
                demoted: Some(Demoted::of(&demotion, 1_000_000)),
                agent: None,
            },
            Degree {
                service: "web".to_owned(),
                backend: "b2".to_owned(),
                address: "fd00::2".parse().unwrap(),
                demoted: None,
                agent: Some(LastWord { wish, since_ms: 7 }),
            },
        ]
    }

    #[test]
    fn what_is_written_is_read_while_it_is_fresh() {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        let mut read = |now_ms| super::read(folder.path(), now_ms, &mut told);
        assert_eq!(read(1), []);
        write(folder.path(), 5_000, degrees()).unwrap();
        assert_eq!(read(5_000 + STALE), degrees());
        assert_eq!(read(4_000), degrees(), "a clock that was set back");
        assert_eq!(read(5_001 + STALE), []);
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn what_a_version_before_traffic_counted_wrote_is_understood() {
        let text = r#"{ "slow": { "latency": { "secs": 1, "nanos": 0 }, "peers": { "secs": 0,
            "nanos": 5 }, "ratio": 3.0, "over": { "secs": 9, "nanos": 0 } } }"#;
        let cause: Cause = serde_json::from_str(text).unwrap();
        assert_eq!(cause.by(), By::Probes);
    }

    #[test]
    fn damage_is_set_aside_and_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("degrees.json"), "{ \"at_ms\": 5").unwrap();
        let mut told = Vec::new();
        assert_eq!(read(folder.path(), 5, &mut told), []);
        assert!(told[0].contains("degrees.json.damaged-5"), "{told:?}");
        assert!(folder.path().join("degrees.json.damaged-5").exists());
    }

    #[test]
    fn a_hold_goes_on_by_the_clock_of_people() {
        let kept = degrees()[0].demoted.clone().unwrap();
        assert_eq!(kept.held_until_ms, 1_090_000);
        assert_eq!(kept.demotion(1_060_000).held, Duration::from_secs(30));
        assert_eq!(kept.demotion(2_000_000).held, Duration::ZERO);
        assert_eq!(kept.demotion(1_000_000).rung, Rung::Quarter);
    }
}
