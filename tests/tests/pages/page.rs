//! Pages in Markdown: what is run of them, and where their links lead.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

/// A block of a page.
#[derive(Debug)]
pub(crate) struct Block {
    /// The line that it begins at.
    pub(crate) line: usize,
    /// Its language.
    pub(crate) language: String,
    /// What it holds.
    pub(crate) text: String,
    /// What comments before it say, as in `<!-- exit: 1 -->`.
    pub(crate) notes: BTreeMap<String, String>,
}

impl Block {
    /// What a comment before it says.
    pub(crate) fn note(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }
}

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The page without its blocks.
    pub(crate) prose: String,
    /// Its blocks.
    pub(crate) blocks: Vec<Block>,
    /// What comments say that stand before no block.
    pub(crate) notes: BTreeMap<String, String>,
}

impl Page {
    /// Reads a page.
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let comment = Regex::new(r"^<!-- (\w+): (.*) -->$").unwrap();
        let mut page = Self {
            path: path.to_owned(),
            prose: String::new(),
            blocks: Vec::new(),
            notes: BTreeMap::new(),
        };
        let mut notes = BTreeMap::new();
        let mut open: Option<(Block, String)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let trimmed = line.trim_start();
            match &mut open {
                Some((_, fence)) if trimmed == fence => {
                    page.blocks.extend(open.take().map(|(block, _)| block));
                }
                Some((block, _)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None if trimmed.starts_with("```") => {
                    let language = trimmed.trim_start_matches('`');
                    let fence = trimmed[..trimmed.len() - language.len()].to_owned();
                    let block = Block {
                        line: number,
                        language: language.to_owned(),
                        text: String::new(),
                        notes: std::mem::take(&mut notes),
                    };
                    open = Some((block, fence));
                }
                None => {
                    if let Some(found) = comment.captures(line) {
                        notes.insert(found[1].to_owned(), found[2].to_owned());
                    } else if !line.is_empty() {
                        page.notes.append(&mut notes);
                    }
                    page.prose.push_str(line);
                    page.prose.push('\n');
                }
            }
        }
        assert!(open.is_none(), "{}: a block has no end", path.display());
        page
    }

    /// Its name without folder and ending.
    pub(crate) fn name(&self) -> &str {
        self.path.file_stem().unwrap().to_str().unwrap()
    }

    /// The files that it leads to, with the anchor where there is one.
    pub(crate) fn links(&self) -> Vec<(PathBuf, Option<String>)> {
        let link = Regex::new(r#"(?:\]\(|(?:src|href)=")([^)\s"]+)[)"]"#).unwrap();
        let code = Regex::new(r"`[^`\n]*`").unwrap();
        let prose = code.replace_all(&self.prose, |found: &regex::Captures<'_>| {
            // Code within the text of a link must not hide it.
            "x".repeat(found[0].len())
        });
        let found = link.captures_iter(&prose).filter_map(|found| {
            let target = &found[1];
            if target.contains("://") || target.starts_with("mailto:") {
                return None;
            }
            let (file, anchor) = match target.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor.to_owned())),
                None => (target, None),
            };
            let path = match file {
                "" => self.path.clone(),
                file => self.path.parent().unwrap().join(file),
            };
            Some((path, anchor))
        });
        found.collect()
    }

    /// The anchors that it has: those that it sets, and those that GitHub makes of its headings.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let set = Regex::new(r#"<a id="([^"]+)">"#).unwrap();
        let mut anchors: Vec<String> = set
            .captures_iter(&self.prose)
            .map(|found| found[1].to_owned())
            .collect();
        for line in self.prose.lines().filter(|line| line.starts_with('#')) {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            });
            anchors.push(kept.collect());
        }
        anchors
    }
}

/// The pages in a folder and below.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages.extend(below(&path));
        } else if path.extension().is_some_and(|end| end == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    pages
}
