//! Invalid configurations, each with what is said about it.
//!
//! `EVENKEEL_BLESS=1` writes the expectations anew: look at what changed before it is committed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use lb_userspace::config::{self, Finding};
use proptest::prelude::*;
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../docs/evenkeel.toml");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_corpus")
}

/// The names of all files, in order.
fn corpus() -> Vec<String> {
    let names = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "toml"))
        .collect();
    names.sort();
    names
}

/// What `evenkeel check` prints of a file, and its exit code.
fn check(arguments: &[&str]) -> (i32, String) {
    let mut evenkeel = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let output = evenkeel
        .arg("check")
        .args(arguments)
        .current_dir(folder())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn each_invalid_file_is_told_with_place_field_and_remedy() {
    let bless = env::var_os("EVENKEEL_BLESS").is_some();
    let names = corpus();
    assert!(names.len() >= 100, "there are {}", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let (code, text) = check(&[name]);
        assert_eq!(code, 1, "{name}: {text}");
        let expected = folder().join(name).with_extension("expected");
        if bless {
            fs::write(&expected, &text).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{name} says:\n{text}"));
        }
        let (code, json) = check(&["--json", name]);
        assert_eq!(code, 1, "{name}: {json}");
        let findings: Vec<Value> = serde_json::from_str(&json).unwrap();
        assert!(!findings.is_empty(), "{name}");
        for finding in findings {
            assert_eq!(finding["file"], **name, "{finding}");
            for key in ["line", "column"] {
                assert!(finding[key].as_u64() > Some(0), "{name}: {key}: {finding}");
            }
            for key in ["field", "problem", "remedy"] {
                let words = finding[key].as_str().unwrap_or_default();
                assert!(!words.is_empty(), "{name}: {key}: {finding}");
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nIf that is what they should say, write it down: `EVENKEEL_BLESS=1 cargo test -p \
         lb-userspace --test config_corpus`",
        wrong.join("\n")
    );
}

#[test]
fn the_text_names_what_the_list_names() {
    for name in corpus() {
        let (_, text) = check(&[&name]);
        let (_, json) = check(&["--json", &name]);
        let findings: Vec<Value> = serde_json::from_str(&json).unwrap();
        for finding in findings {
            let place = format!("{name}:{}:{}", finding["line"], finding["column"]);
            let (field, remedy) = (
                finding["field"].as_str().unwrap(),
                finding["remedy"].as_str().unwrap(),
            );
            assert!(text.contains(&place), "{place}: {text}");
            assert!(text.contains(&format!("{field}: ")), "{field}: {text}");
            // The text may break a remedy over lines.
            let words: Vec<&str> = remedy.split_whitespace().take(3).collect();
            assert!(text.contains(&words.join(" ")), "{remedy}: {text}");
        }
    }
}

/// What holds of every finding about a text.
fn sound(text: &[u8]) -> Result<(), TestCaseError> {
    let Err(findings) = config::parse_bytes("f.toml", text) else {
        return Ok(());
    };
    let lines = text.split(|&byte| byte == b'\n').count();
    prop_assert!(findings.iter().next().is_some());
    for finding in &findings {
        let Finding {
            file,
            line,
            column,
            field,
            problem,
            remedy,
            ..
        } = finding;
        prop_assert_eq!(file, "f.toml");
        prop_assert!((1..=lines).contains(line), "line {} of {}", line, lines);
        prop_assert!(*column >= 1);
        for words in [field, problem, remedy] {
            prop_assert!(!words.trim().is_empty(), "{:?}", finding);
        }
    }
    prop_assert!(findings.to_string().contains("f.toml:"));
    Ok(())
}

/// Values that stand where others belong.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("-1".to_owned()),
        Just("0".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("99999999999999999999999999".to_owned()),
        Just("1e400".to_owned()),
        Just("nan".to_owned()),
        Just("-inf".to_owned()),
        Just("true".to_owned()),
        Just("\"\"".to_owned()),
        Just("\"\\u0000\"".to_owned()),
        Just("\"９９ \u{202e}🦀\"".to_owned()),
        Just("\"\"\"\nmany\nlines\n\"\"\"".to_owned()),
        Just("[]".to_owned()),
        Just("[[[]]]".to_owned()),
        Just("{}".to_owned()),
        Just("{ a = { b = 1 } }".to_owned()),
        Just("2026-11-25T20:03:56Z".to_owned()),
        Just(String::new()),
        "[0-9]{1,30}(s|ms|h|days|y)?".prop_map(|text| format!("\"{text}\"")),
        "\\PC{0,12}".prop_map(|text| format!("{text:?}")),
        "[ -~]{0,12}",
    ]
}

/// The lines of the example that give a key a value.
fn settings() -> Vec<usize> {
    let is_setting = |line: &str| !line.starts_with('#') && line.contains(" = ");
    let lines = EXAMPLE.lines().enumerate();
    lines
        .filter(|(_, line)| is_setting(line))
        .map(|(n, _)| n)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn other_values_are_told_at_their_place(which in any::<prop::sample::Index>(), with in value()) {
        let at = *which.get(&settings());
        let change = |(n, line): (usize, &str)| match line.split_once(" = ") {
            Some((key, _)) if n == at => format!("{key} = {with}"),
            _ => line.to_owned(),
        };
        let lines: Vec<String> = EXAMPLE.lines().enumerate().map(change).collect();
        sound(lines.join("\n").as_bytes())?;
    }

    #[test]
    fn swapped_and_lost_and_doubled_lines_are_told(
        one in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        what in 0..4,
    ) {
        let mut lines: Vec<&str> = EXAMPLE.lines().filter(|line| !line.starts_with('#')).collect();
        let (one, other) = (one.index(lines.len()), other.index(lines.len()));
        match what {
            0 => lines.swap(one, other),
            1 => drop(lines.remove(one)),
            2 => lines.insert(other, lines[one]),
            _ => lines.truncate(one),
        }
        sound(lines.join("\n").as_bytes())?;
    }

    #[test]
    fn other_bytes_are_told(
        at in 0..EXAMPLE.len(),
        length in 0..40usize,
        with in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with);
        sound(&bytes)?;
    }
}
