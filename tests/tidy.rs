//! The rules of this tree that a compiler does not check: which module may import which and use
//! which crate, how long lines and functions are, that unsafe blocks say why, that ARCHITECTURE.md
//! and the other pages name and cite what is there.

#![allow(clippy::unwrap_used)]

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/citations.rs"]
mod citations;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the package in `bench` in import order: each may use those before it. The table in
/// ARCHITECTURE.md has those of `src`.
const BENCH_ORDER: [&str; 17] = [
    "record",
    "common",
    "table",
    "endpoint",
    "load",
    "found",
    "numbers",
    "operations",
    "plan",
    "compare",
    "observer",
    "html",
    "kernel",
    "gpu",
    "summary",
    "commands",
    "main",
];

const LINE_CHARS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 75;
const FILE_LINES_MAX: usize = 800;

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs" || e == "wgsl") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no source files in {folder}");
    found
}

/// The module that a file of `src` or `bench/src` belongs to: its first path component without
/// extension.
fn module(path: &Path) -> String {
    let inner = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    let inner = inner.strip_prefix("bench").unwrap_or(inner).strip_prefix("src").unwrap();
    inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Lines that are code, with their numbers: comments and doc comments dropped.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines.map(|(i, line)| (i, line.split("//").next().unwrap_or(""))).filter(|(_, l)| !l.is_empty())
}

/// The table of modules of ARCHITECTURE.md, in import order: each module, its entry point, what it
/// promises, and what it imports.
fn modules() -> Vec<(String, String, String, BTreeSet<String>)> {
    let text = page("ARCHITECTURE.md");
    let row = |row: Vec<&str>| {
        let [module, entry, promise, uses] = row[..] else { panic!("{row:?}: expected 4 cells") };
        let uses = BTreeSet::from_iter(code_words(uses));
        (code_words(module).concat(), entry.to_owned(), promise.to_owned(), uses)
    };
    table(&text, "| module | entry point |").into_iter().map(row).collect()
}

/// The same names alone.
fn order() -> Vec<String> {
    modules().into_iter().map(|(module, ..)| module).collect()
}

/// The code of a file without its own tests, which may use anything.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

const IS_TEST: [&str; 3] = ["tests.rs", "simulation.rs", "simulated.rs"];

/// Whether a file below `src` holds nothing but tests of its module.
fn is_test_file(path: &Path) -> bool {
    let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path);
    let is_in_folder = path.components().any(|part| part.as_os_str() == "tests");
    let name = path.file_name().unwrap().to_str().unwrap();
    is_in_folder || name.ends_with("_tests.rs") || IS_TEST.contains(&name)
}

/// What a line of a file uses of other modules: the module of the file, the place, the other one.
/// A package is its folder of sources, its modules and the name of its library.
fn imports(folder: &str, order: &[String], library: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for path in rust_files(folder) {
        let module = module(&path);
        if module == "lib" || is_test_file(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in code(without_tests(&text)) {
            // The program and its commands name the library by its name.
            for part in line.replace(&format!("{library}::"), "crate::").split("crate::").skip(1) {
                let name: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if order.contains(&name) && name != module {
                    found.push((module.clone(), format!("{}:{number}", path.display()), name));
                }
            }
        }
    }
    found
}

#[test]
fn modules_import_only_what_comes_before_them() {
    let mut wrong = Vec::new();
    let bench_order = BENCH_ORDER.map(str::to_owned).to_vec();
    for (folder, order, library) in
        [("src", order(), "sotto"), ("bench/src", bench_order, "sotto_bench")]
    {
        let rank = |name: &str| order.iter().position(|module| module == name);
        for (module, place, name) in imports(folder, &order, library) {
            let own = rank(&module).unwrap_or_else(|| panic!("{module} is missing from the order"));
            if rank(&name).unwrap() > own {
                wrong.push(format!("{place}: {module} uses {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "inner modules import outer ones:\n{}", wrong.join("\n"));
}

#[test]
fn outside_crates_live_where_they_belong() {
    let (text, dependencies) = (page("ARCHITECTURE.md"), page("Cargo.toml"));
    let mut owners = Vec::new();
    for row in table(&text, "| crates | modules |") {
        for name in code_words(row[0]) {
            let is_there = dependencies.contains(&name.replace('_', "-"));
            assert!(is_there || dependencies.contains(&name), "{name} is not in Cargo.toml");
            owners.push((name, code_words(row[1])));
        }
    }
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let module = module(&path);
        let text = fs::read_to_string(&path).unwrap();
        if is_test_file(&path) {
            continue;
        }
        for (name, _) in owners.iter().filter(|(_, owners)| !owners.contains(&module)) {
            let marks = [format!("{name}::"), format!("use {name};")];
            let is_used = |line: &str| marks.iter().any(|mark| line.contains(mark));
            let lines = code(&text).filter(|(_, line)| is_used(line));
            wrong.extend(lines.map(|(number, _)| format!("{}:{number}: {name}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "crates outside their modules:\n{}", wrong.join("\n"));
}

/// A print macro panics where the reader has gone or the disk is full.
#[test]
fn standard_output_and_error_are_written_in_one_place() {
    let marks = ["print!(", "println!(", "stdout()", "stderr()"];
    // The printer; the log; progress, which may be lost; what a measurement says as it goes, which
    // its record has too.
    let allowed = ["commands/out.rs", "commands/log.rs", "builder/progress.rs", "common/report.rs"];
    let mut wrong = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("bench/src")) {
        if is_test_file(&path) || allowed.iter().any(|allowed| path.ends_with(allowed)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in code(without_tests(&text)) {
            // These ask whether it is a terminal and write nothing.
            let line = line.replace("stderr().is_terminal()", "").replace("use_stderr()", "");
            if marks.iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "written elsewhere than in commands/out.rs:\n{}", wrong.join("\n"));
}

#[test]
fn lines_functions_and_files_are_short() {
    let mut wrong = Vec::new();
    for path in ["src", "shaders", "tests", "bench", "examples"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&path).unwrap();
        let place = path.display();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            wrong.push(format!("{place}: {} lines", lines.len()));
        }
        for (i, line) in lines.iter().enumerate() {
            if line.chars().count() > LINE_CHARS_MAX {
                wrong.push(format!("{place}:{}: longer than {LINE_CHARS_MAX}", i + 1));
            }
            let indent = line.len() - line.trim_start().len();
            let words = line.trim_start();
            // `fn`, and what may stand before it.
            let is_function = words.split_once("fn ").is_some_and(|(before, _)| {
                let qualifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe"];
                before.split_whitespace().all(|word| qualifiers.contains(&word))
            });
            if is_function && !words.ends_with(';') && !words.ends_with('}') {
                let end = format!("{}}}", " ".repeat(indent));
                let length = lines[i..].iter().position(|line| **line == end).unwrap_or(0) + 1;
                if length > FUNCTION_LINES_MAX {
                    wrong.push(format!("{place}:{}: a function of {length} lines", i + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "too long:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_rare_and_says_why() {
    // SIMD kernels and transforms, memory maps. Plain-data casts would be bytemuck's.
    let allowed = ["arith", "shard", "engine"];
    // The page that a forked child finds wiped; a call of the allocator's, which has no safe form;
    // in the benchmark loops of one instruction, and reading as fast as possible.
    let allowed_files = [
        "src/scheme/process.rs",
        "src/server/machine.rs",
        "bench/src/kernel/peaks.rs",
        "bench/src/kernel/floors.rs",
    ];
    let mut wrong = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("bench/src")) {
        let module = module(&path);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if !code.contains("unsafe {") && !code.contains("unsafe impl") {
                continue;
            }
            let file_allowed = allowed_files.iter().any(|file| path.ends_with(file));
            if !allowed.contains(&&*module) && !file_allowed {
                wrong.push(format!("{}:{}: unsafe in {module}", path.display(), i + 1));
            }
            let said = lines[i.saturating_sub(4)..=i].iter().any(|l| l.contains("// SAFETY:"));
            if !said {
                wrong.push(format!("{}:{}: no SAFETY line", path.display(), i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_unfinished_is_left() {
    let marks = ["TODO", "FIXME", "XXX", "#[ignore", "unimplemented!(", "thread::sleep"];
    let mut wrong = Vec::new();
    for path in ["src", "shaders", "tests", "bench"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&path).unwrap();
        let found = marks.iter().filter(|mark| text.contains(**mark));
        wrong.extend(found.map(|mark| format!("{}: {mark}", path.display())));
    }
    wrong.retain(|found| !found.contains("tests/tidy.rs"));
    assert!(wrong.is_empty(), "unfinished:\n{}", wrong.join("\n"));
}

/// A page of documentation.
fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands between backticks, outside of blocks of code.
fn code_words(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The cells of the rows of a table that begins with this head.
fn table<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let (_, rows) = text.split_once(head).unwrap_or_else(|| panic!("there is no table {head}"));
    let rows = rows.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &'a str| row.trim_matches('|').split('|').map(str::trim).collect();
    rows.map(cells).collect()
}

#[test]
fn the_architecture_page_has_the_modules_and_their_imports() {
    let order = order();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, _, name) in imports("src", &order, "sotto") {
        used.entry(module).or_default().insert(name);
    }
    for (module, entry, promise, said) in modules() {
        assert!(entry.contains("](") && !promise.is_empty(), "{module} lacks a cell");
        let used = used.remove(&module).unwrap_or_default();
        assert_eq!(said, used, "ARCHITECTURE.md (left) and the code (right) on {module}");
    }
    let src = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    for path in src.map(|entry| entry.unwrap().path()) {
        let name = module(&path);
        assert!(name == "lib" || order.contains(&name), "ARCHITECTURE.md lacks {name}");
    }
}

#[test]
fn the_architecture_page_names_every_folder_of_src() {
    let text = page("ARCHITECTURE.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders: BTreeSet<PathBuf> =
        rust_files("src").iter().map(|file| file.parent().unwrap().to_owned()).collect();
    for folder in folders.iter().filter(|folder| !folder.ends_with("tests")) {
        let folder = folder.strip_prefix(root).unwrap().to_str().unwrap();
        assert!(text.contains(&format!("{folder}/")), "ARCHITECTURE.md does not name {folder}/");
    }
}

/// A word that reads as a path of this repository.
fn is_path(word: &str) -> bool {
    let starts = ["src/", "tests/", "bench/", "deploy/", "docs/", "shaders/", "shards/", ".ci/"];
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    starts.iter().any(|start| word.starts_with(start))
        && word.chars().all(inner)
        && !["NAME", "..."].iter().any(|place| word.contains(place))
}

#[test]
fn documents_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = [
        "README.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "deploy/README.md",
        "deploy/RUNBOOK.md",
        "shards/README.md",
    ]
    .map(PathBuf::from)
    .to_vec();
    names.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let mut wrong = Vec::new();
    for name in names {
        let words = code_words(&page(name.to_str().unwrap()));
        let missing = words.iter().filter(|word| is_path(word) && !root.join(word).exists());
        wrong.extend(missing.map(|word| format!("{}: `{word}`", name.display())));
    }
    assert!(wrong.is_empty(), "what is named is not there:\n{}", wrong.join("\n"));
}

#[test]
fn documents_name_types_and_functions_that_exist() {
    let mut identifiers = BTreeSet::new();
    for path in ["src", "tests", "bench"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(path).unwrap();
        for (_, line) in code(&text) {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            identifiers.extend(words.map(str::to_owned));
        }
    }
    // Names in capitals alone are variables of the environment and statuses.
    let is_name = |word: &&String| {
        word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            && word.chars().any(|c| c.is_ascii_lowercase())
    };
    let mut wrong = Vec::new();
    for name in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        for word in code_words(&page(name)).iter().filter(is_name) {
            let parts = word.split("::").filter(|part| !part.is_empty());
            for part in parts.filter(|part| !identifiers.contains(*part)) {
                wrong.push(format!("{name}: `{word}`: there is no {part}"));
            }
        }
    }
    assert!(wrong.is_empty(), "what is named is not there:\n{}", wrong.join("\n"));
}
