use super::*;

#[test]
fn the_last_wish_is_in_force() {
    let of = InForce {
        number: 7,
        before: Some(6),
        file_sha256: Some("old".to_owned()),
        unapplied_sha256: Some("edit".to_owned()),
        ..InForce::default()
    };
    let choice = |file| choose(file, Some((&of, "applied")), 1_000);
    assert_eq!(choose(Some("any"), None, 1_000), Choice::First);
    assert_eq!(choose(None, None, 1_000), Choice::First);
    assert_eq!(choice(Some("applied")), Choice::Same);
    assert_eq!(choice(Some("old")), Choice::Applied);
    assert_eq!(choice(Some("edit")), Choice::Unapplied);
    assert_eq!(choice(Some("later")), Choice::Edited);
    assert_eq!(choice(None), Choice::FileUnusable);
    let waiting = |by| InForce {
        confirm_by_ms: Some(by),
        ..of.clone()
    };
    let at = |by| choose(Some("applied"), Some((&waiting(by), "applied")), 1_000);
    assert_eq!(at(1_000), Choice::NotConfirmed(6));
    assert_eq!(at(1_001), Choice::Same);
}

struct Bed {
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("evenkeel.toml")
    }

    fn text(&self, vip: u8) -> String {
        format!(
            "[data_plane]\ninterfaces = [\"eth0\"]\n[state]\ndirectory = \"{}\"\n[[services]]\n\
             name = \"web\"\nvip = \"198.51.100.{vip}\"\nport = 80\n\
             [[services.backends]]\naddress = \"10.0.0.1\"\n",
            self.folder.path().join("state").display()
        )
    }

    fn write(&self, vip: u8) {
        fs::write(self.file(), self.text(vip)).unwrap();
    }

    #[track_caller]
    fn start(&self, vip: u8, number: u64, said: &str) -> Opening {
        let opening = open(&self.file(), 1_000).unwrap();
        assert_eq!(digest(&self.text(vip)), opening.sha256);
        assert_eq!(opening.kept.in_force().unwrap().number, number);
        let told = format!("{:?}", opening.told);
        assert!(told.contains(said), "{told}");
        opening
    }

    /// What a controller does that applies another text.
    fn apply(&self, mut opening: Opening, vip: u8, confirm_by_ms: Option<u64>) {
        let text = self.text(vip);
        let entry = Entry {
            sha256: digest(&text),
            ..Entry::default()
        };
        let number = opening.kept.add(entry, &text).unwrap();
        let of = opening.kept.in_force().unwrap().clone();
        let next = InForce {
            number,
            before: Some(of.number),
            confirm_by_ms,
            ..of
        };
        opening.kept.put_in_force(next).unwrap();
    }
}

#[test]
fn an_applied_configuration_outlives_restarts_until_the_file_is_edited() {
    let bed = Bed::new();
    bed.write(1);
    bed.start(1, 1, "");
    let again = bed.start(1, 1, "");
    bed.apply(again, 2, None);
    bed.start(2, 2, "says something else and is NOT");
    bed.start(2, 2, "says something else and is NOT");
    // A slip in the file must not keep the controller down.
    fs::write(bed.file(), format!("{}nonsense", bed.text(1))).unwrap();
    fs::write(bed.file(), bed.text(1).replace("web", "not a name")).unwrap();
    bed.start(2, 2, "is of no use");
    bed.write(3);
    bed.start(3, 3, "was changed since configuration 2");
    let quiet = bed.start(3, 3, "");
    // A service with one backend and no check; said when it came, and not again.
    assert!(quiet.told.is_empty(), "{:?}", quiet.told);
}

#[test]
fn an_edit_that_nobody_applied_does_not_come_into_force_by_a_crash() {
    let bed = Bed::new();
    bed.write(1);
    let mut opening = bed.start(1, 1, "");
    bed.write(2);
    let seen = |opening: &Opening, unapplied_sha256| InForce {
        unapplied_sha256,
        ..opening.kept.in_force().unwrap().clone()
    };
    let edit = seen(&opening, Some(digest(&bed.text(2))));
    opening.kept.put_in_force(edit).unwrap();
    let mut crashed = bed.start(1, 1, "did not end as told");
    // It ends as told, which is what an operator does to have the file read.
    let ended = seen(&crashed, None);
    crashed.kept.put_in_force(ended).unwrap();
    bed.start(2, 2, "takes its place");
}

#[test]
fn what_is_not_confirmed_in_time_is_taken_back_by_a_start() {
    let bed = Bed::new();
    bed.write(1);
    let opening = bed.start(1, 1, "");
    bed.apply(opening, 2, Some(900));
    let opening = bed.start(1, 3, "not confirmed in time");
    let shown = opening.kept.shown(3).unwrap();
    assert_eq!((shown.how.as_str(), shown.copy_of), ("rollback", Some(1)));
    bed.apply(opening, 2, Some(1_001));
    bed.start(2, 4, "");
}

#[test]
fn a_disk_that_takes_nothing_stops_no_start() {
    let bed = Bed::new();
    bed.write(1);
    // A file in the place of the folder.
    fs::write(bed.folder.path().join("state"), "").unwrap();
    let opening = open(&bed.file(), 1).unwrap();
    assert_eq!(opening.sha256, digest(&bed.text(1)));
    assert!(format!("{:?}", opening.told).contains("not kept"));
    assert!(opening.kept.in_force().is_none());
    fs::remove_file(bed.file()).unwrap();
    assert!(open(&bed.file(), 1).is_err());
}
