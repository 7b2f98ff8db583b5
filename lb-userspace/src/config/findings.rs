//! What is wrong with a file, for people and for programs.

use std::{fmt, ops::Range, sync::Arc};

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
    /// Which field, as in `services[0].backends[1].weight`; `file` where none is to blame.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
    /// The whole file's text, shared by all findings.
    #[serde(skip)]
    text: Arc<str>,
    /// What of the text is to blame, within one line.
    #[serde(skip)]
    at: Range<usize>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = match self.field.as_str() {
            "" => self.problem.clone(),
            field => format!("{field}: {}", self.problem),
        };
        // The renderer goes through all of its source, so it gets no more than one line.
        let start = line_start(&self.text, self.at.start);
        let line = self.text[start..].split('\n').next().unwrap_or_default();
        let snippet = Snippet::source(line)
            .line_start(self.line)
            .path(self.file.as_str())
            .annotation(
                AnnotationKind::Primary
                    .span(self.at.start - start..self.at.end - start)
                    .label(self.problem.as_str()),
            );
        let group = Level::ERROR
            .primary_title(title.as_str())
            .element(snippet)
            .element(Level::HELP.message(self.remedy.as_str()));
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

/// Where the line that holds a byte begins.
fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |end| end + 1)
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
            writeln!(f, "{finding}\n")?;
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
    text: Arc<str>,
    /// Where each line but the first begins.
    lines: Vec<usize>,
    findings: Vec<Finding>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &str) -> Self {
        Self {
            file,
            text: text.into(),
            lines: text.match_indices('\n').map(|(end, _)| end + 1).collect(),
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
        let start = self.text.floor_char_boundary(at.start);
        let end = self.text.floor_char_boundary(at.end).max(start);
        // One line is enough to find the place: a whole table would bury it.
        let part = self.text[start..end].split('\n').next();
        self.findings.push(Finding {
            file: self.file.to_owned(),
            line: self.line(&at),
            column: self.text[line_start(&self.text, start)..start]
                .chars()
                .count()
                + 1,
            field: field.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
            text: Arc::clone(&self.text),
            at: start..start + part.map_or(0, str::len),
        });
    }

    /// The line that a part of the text begins in, from 1.
    pub(super) fn line(&self, at: &Range<usize>) -> usize {
        self.lines.partition_point(|&line| line <= at.start) + 1
    }

    /// What was found, by place.
    pub(super) fn into_findings(mut self) -> Findings {
        self.findings.sort_by_key(|finding| finding.at.start);
        Findings(self.findings)
    }
}
