//! Every document, section and issue that a file of this tree cites is in the tree.
//!
//! A citation is a path that ends in `.md`: from the root, or from the citing file's folder or one
//! above it. A section follows as an anchor (`docs/scheme.md#secrets`) or as its title in quotes
//! (docs/scheme.md, "Secrets"). Issues are nowhere in the tree, so none may be cited. Not checked:
//! raw output of measurements, paths of other repositories, paths with a variable in them, and
//! file names in quotes, which are a program's arguments.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Files that people write and read, by extension or name.
const KINDS: &str = "rs wgsl md sh py toml yml yaml tpl service conf json Containerfile";
/// Files and folders that nobody wrote, or whose text is somebody else's.
const SKIPPED: [&str; 5] = [".git", "target", "corpus", "artifacts", "bench/record"];

fn is_skipped(path: &Path) -> bool {
    let inner = path.strip_prefix(ROOT).unwrap();
    let is_built = path.is_dir() && inner.starts_with("shards");
    let is_named = SKIPPED.iter().any(|name| inner.ends_with(name) && !inner.starts_with("src"));
    is_named || is_built || inner.ends_with("tidy/citations.rs")
}

/// All files to look at: what is written by hand, and the summaries of records.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.extension().or(path.file_name()).unwrap().to_str().unwrap();
            if is_skipped(&path) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if KINDS.split(' ').any(|known| known == kind) || folder.ends_with(".ci") {
                found.push(path);
            }
        }
    }
    for record in fs::read_dir(Path::new(ROOT).join("bench/record")).unwrap() {
        found.extend(Some(record.unwrap().path().join("README.md")).filter(|path| path.exists()));
    }
    found.sort();
    found
}

/// The text without the marks of comments, its lines joined by a space, so that a citation may
/// continue on the next line.
fn without_marks(text: &str) -> String {
    let marks = ["//!", "///", "//", "#"];
    let line = |line: &str| {
        let line = line.trim();
        marks.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line).trim().to_owned()
    };
    text.lines().map(line).collect::<Vec<_>>().join(" ")
}

/// Titles of a document's sections.
fn titles(document: &str) -> Vec<String> {
    let mut in_code = false;
    let mut titles = Vec::new();
    for line in document.lines() {
        in_code ^= line.starts_with("```");
        if !in_code && line.starts_with('#') {
            titles.push(line.trim_start_matches('#').trim().replace('`', ""));
        }
    }
    titles
}

/// The anchor of a section, as the usual viewers make it.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// A path in a citation: where it begins in the text, and what it is.
fn paths(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    text.match_indices(".md").filter_map(move |(at, _)| {
        let end = at + ".md".len();
        let start = text[..at]
            .rfind(|c| !is_path(c))
            .map_or(0, |last| last + text[last..].chars().next().unwrap().len_utf8());
        let is_whole = !text[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let has_variable = text[..start].ends_with(['$', '}', '>', '*', '~']);
        let is_elsewhere = text[start..].starts_with('/') || is_of_a_commit(&text[end..]);
        // A file name that a program uses.
        let is_argument = text[..start].ends_with('"') && text[end..].starts_with('"');
        let is_cited = is_whole && at > start && !(has_variable || is_elsewhere || is_argument);
        is_cited.then_some((start, &text[start..end]))
    })
}

/// " of 2957e43" after a path says that it is another repository's.
fn is_of_a_commit(rest: &str) -> bool {
    let commit = rest.trim_start_matches('`').strip_prefix(" of ").unwrap_or("");
    commit.len() >= 7 && commit.bytes().take(7).all(|byte| byte.is_ascii_hexdigit())
}

/// The document that a file means by a path.
fn document(file: &Path, path: &str) -> Option<PathBuf> {
    let folders = file.ancestors().skip(1).take_while(|folder| folder.starts_with(ROOT));
    folders.map(|folder| folder.join(path)).find(|path| path.exists())
}

/// The sections that follow a path: anchors and titles.
fn sections(rest: &str) -> (Option<&str>, Vec<&str>) {
    let is_anchor = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let cited = rest
        .strip_prefix('#')
        .map(|rest| &rest[..rest.find(|c| !is_anchor(c)).unwrap_or(rest.len())]);
    let mut rest =
        rest[cited.map_or(0, |anchor| anchor.len() + 1)..].trim_start_matches(['`', ')']);
    let (mut titles, mut joints) = (Vec::new(), &[", \""][..]);
    while let Some(after) = joints.iter().find_map(|joint| rest.strip_prefix(joint)) {
        let Some((title, after)) = after.split_once('"') else { break };
        titles.push(title);
        (rest, joints) = (after, &[", \"", " and \"", ", and \""]);
    }
    (cited, titles)
}

/// What a file cites that is not in the tree.
fn wrong_in(file: &Path, text: &str) -> Vec<String> {
    let text = &without_marks(text);
    let mut wrong = Vec::new();
    for (start, path) in paths(text) {
        let Some(found) = document(file, path) else {
            wrong.push(format!("{path} is not in the tree"));
            continue;
        };
        let titles = titles(&fs::read_to_string(&found).unwrap());
        let (cited, named) = sections(&text[start + path.len()..]);
        if let Some(cited) = cited.filter(|cited| !titles.iter().any(|t| anchor(t) == **cited)) {
            wrong.push(format!("{path} has no section #{cited}"));
        }
        let missing = named.into_iter().filter(|named| !titles.iter().any(|title| title == named));
        wrong.extend(missing.map(|title| format!("{path} has no section \"{title}\"")));
    }
    let lower = text.to_lowercase();
    for word in ["issue ", "issues ", "issue #", "issues #", "(#"] {
        let cited = lower.match_indices(word).filter(|(at, _)| {
            let number = lower[at + word.len()..].trim_start();
            let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            (1..=5).contains(&digits) && !number[digits..].starts_with(char::is_alphanumeric)
        });
        let around = |at| lower[at..].chars().take(20).collect::<String>();
        wrong.extend(cited.map(|(at, _)| format!("an issue: {:?}", around(at))));
    }
    wrong
}

/// Targets of a document's links that are not there: files, and sections of the document itself.
fn wrong_links(file: &Path, text: &str) -> Vec<String> {
    let own = titles(text);
    let is_there = |target: &str| match target.split_once('#') {
        Some(("", cited)) => own.iter().any(|title| anchor(title) == cited),
        Some((path, _)) => file.parent().unwrap().join(path).exists(),
        None => file.parent().unwrap().join(target).exists(),
    };
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let wrong = targets.filter(|target| !target.contains("://") && !is_there(target));
    wrong.map(|target| format!("the link {target} leads nowhere")).collect()
}

#[test]
fn what_is_cited_is_in_the_tree() {
    let mut wrong = Vec::new();
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let mut found = wrong_in(&file, &text);
        if file.extension().is_some_and(|kind| kind == "md") {
            found.extend(wrong_links(&file, &text));
        }
        wrong.extend(found.into_iter().map(|what| format!("{}: {what}", file.display())));
    }
    assert!(wrong.is_empty(), "cited and not in the tree:\n{}", wrong.join("\n"));
}

#[test]
fn citations_of_what_is_not_there_are_found() {
    let file = Path::new(ROOT).join("src/scheme/secret.rs");
    let right = [
        "//! docs/scheme.md, \"Secrets\", says so",
        "/// docs/scheme.md, \"Key\n/// bundle and query\" and \"Secrets\"",
        "see [the page](docs/scheme.md#noise-rule), \"Noise rule\"",
        "rust-lang/rust#126622, `evaluation.md` of 2957e43, $out/none.md, https://x.y/none.md",
        "text(\"none.md\"), PKCS #12",
        "an issue of 4 packs",
    ];
    for text in right {
        assert_eq!(wrong_in(&file, text), [""; 0], "{text}");
    }
    let wrong = [
        "//! scheme.md, \"Secrets\"",
        "// docs/none.md",
        "/// docs/scheme.md, \"Secret\"",
        "/// docs/scheme.md, \"Secrets\" and \"A\n/// shard\"",
        "docs/scheme.md#secret",
        "of issue 4",
        "as Issue #12 says",
        "was mended (#12)",
    ];
    for text in wrong {
        assert!(!wrong_in(&file, text).is_empty(), "{text}");
    }
    let readme = Path::new(ROOT).join("README.md");
    assert_eq!(wrong_links(&readme, "# A b\n[x](#a-b) [y](src/lib.rs) [z](https://z)"), [""; 0]);
    assert_eq!(
        wrong_links(&readme, "# A b\n[x](#a) [y](src/none.rs) [z](docs/none.md#a)").len(),
        3
    );
}
