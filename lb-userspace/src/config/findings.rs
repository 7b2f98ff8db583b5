//! What is wrong with a file, for people and for programs.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// Which field, as in `services[0].backends[1].weight`; empty where none is to blame.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
    #[serde(skip)]
    rendered: String,
}

/// Everything that is wrong with a file, in its order; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// The findings one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0 {
            writeln!(f, "{}\n", finding.rendered)?;
        }
        let (count, file) = (self.0.len(), self.0.first().map_or("", |first| &first.file));
        write!(
            f,
            "{count} {} in {file}",
            if count == 1 { "error" } else { "errors" }
        )
    }
}

/// Collects findings while a file is gone through.
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    findings: Vec<(usize, Finding)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            findings: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Adds a finding about a part of the text.
    pub(super) fn add(
        &mut self,
        at: Range<usize>,
        field: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (problem, remedy) = (problem.into(), remedy.into());
        let (line, column) = self.position(at.start);
        let title = match field {
            "" => problem.clone(),
            _ => format!("{field}: {problem}"),
        };
        // One line is enough to find the place: a whole table would bury it.
        let rest = self.text.get(at.start..at.end).unwrap_or_default();
        let end = at.start + rest.find('\n').unwrap_or(rest.len());
        let snippet = Snippet::source(self.text).path(self.file).annotation(
            AnnotationKind::Primary
                .span(at.start..end)
                .label(problem.as_str()),
        );
        let group = Level::ERROR
            .primary_title(title.as_str())
            .element(snippet)
            .element(Level::HELP.message(remedy.as_str()));
        let rendered = Renderer::plain().render(&[group]);
        let finding = Finding {
            file: self.file.to_owned(),
            line,
            column,
            field: field.to_owned(),
            problem,
            remedy,
            rendered,
        };
        self.findings.push((at.start, finding));
    }

    /// The line that a part of the text begins in, from 1.
    pub(super) fn line(&self, at: &Range<usize>) -> usize {
        self.position(at.start).0
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |last| last.chars().count())
            + 1;
        (line, column)
    }

    /// What was found, by place.
    pub(super) fn into_findings(mut self) -> Findings {
        self.findings.sort_by_key(|(at, _)| *at);
        Findings(
            self.findings
                .into_iter()
                .map(|(_, finding)| finding)
                .collect(),
        )
    }
}
