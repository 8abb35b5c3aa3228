//! The habits of this tree that a compiler does not check: which module may import which, where
//! outside crates live, how long lines and functions are, that unsafe blocks say why.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules in import order: each may use those before it. ARCHITECTURE.md has the same list.
const ORDER: [&str; 20] = [
    "limits",
    "params",
    "text",
    "arith",
    "scheme",
    "keyword",
    "wire",
    "shard",
    "build",
    "engine",
    "schedule",
    "placement",
    "worker",
    "metrics",
    "server",
    "client",
    "bench",
    "measure",
    "commands",
    "main",
];

/// Outside crates that live in some modules only.
const OWNERS: [(&str, &[&str]); 30] = [
    ("wgpu", &["engine"]),
    ("bytemuck", &["engine"]),
    ("pollster", &["engine"]),
    ("memmap2", &["shard"]),
    ("libc", &["arith", "scheme", "server", "shard"]),
    ("flate2", &["build"]),
    ("zstd", &["build"]),
    ("indicatif", &["build", "commands"]),
    ("prost", &["wire"]),
    ("ed25519_dalek", &["wire", "build"]),
    ("quinn", &["server", "client"]),
    ("rustls", &["server", "client"]),
    ("rcgen", &["server"]),
    ("webpki", &["server"]),
    ("x509_parser", &["server"]),
    ("lru", &["server"]),
    ("governor", &["server"]),
    ("axum", &["server"]),
    ("hyper", &["server"]),
    ("hyper_util", &["server"]),
    ("prometheus", &["metrics"]),
    ("clap", &["commands", "main"]),
    ("strsim", &["commands"]),
    ("toml", &["bench", "commands"]),
    ("hdrhistogram", &["bench"]),
    ("maud", &["bench"]),
    ("sha2", &["bench"]),
    ("tokio", &["worker", "server", "client", "bench", "commands", "main"]),
    ("rayon", &["scheme", "keyword", "shard", "build", "engine"]),
    ("tracing_subscriber", &["commands", "main"]),
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

/// The module a file of src belongs to: its first path component without extension. Of other
/// files, the whole path.
fn module(path: &Path) -> String {
    let inner = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    let Ok(inner) = inner.strip_prefix("src") else {
        return inner.to_str().unwrap().trim_end_matches(".rs").to_owned();
    };
    inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Lines that are code, with their numbers: comments and doc comments dropped.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines.map(|(i, line)| (i, line.split("//").next().unwrap_or(""))).filter(|(_, l)| !l.is_empty())
}

#[test]
fn modules_import_only_what_comes_before_them() {
    let mut wrong = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("bench")) {
        let mut module = module(&path);
        if module == "lib" {
            continue;
        }
        // A module of the program's, which only `commands` knows.
        if module.starts_with("bench/") {
            module = "measure".into();
        }
        let rank = |name: &str| ORDER.iter().position(|&m| m == name);
        let own = rank(&module).unwrap_or_else(|| panic!("{module} is missing from ORDER"));
        let text = fs::read_to_string(&path).unwrap();
        // Test modules may use anything.
        let body = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (number, line) in code(body) {
            for part in line.split("crate::").skip(1) {
                let name: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if rank(&name).is_some_and(|other| other > own) {
                    wrong.push(format!("{}:{number}: {module} uses {name}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "inner modules import outer ones:\n{}", wrong.join("\n"));
}

#[test]
fn outside_crates_live_where_they_belong() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let module = module(&path);
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in code(&text) {
            for (name, owners) in OWNERS {
                let used =
                    line.contains(&format!("{name}::")) || line.contains(&format!("use {name};"));
                if used && !owners.contains(&&*module) {
                    wrong.push(format!("{}:{number}: {name} in {module}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "crates outside their modules:\n{}", wrong.join("\n"));
}

/// A print macro panics where the reader has gone or the disk is full.
#[test]
fn standard_output_and_error_are_written_in_one_place() {
    let marks = ["print!(", "println!(", "stdout()", "stderr()"];
    // The printer; the log; lines of progress, which are lost without harm; what a measurement says
    // as it goes, which its record holds too.
    let allowed = ["commands/out.rs", "main.rs", "build/progress.rs", "bench/common/report.rs"];
    let is_test = |path: &Path| {
        ["tests.rs", "simulation.rs", "simulated.rs"].iter().any(|name| path.ends_with(name))
    };
    let mut wrong = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("bench")) {
        if is_test(&path) || allowed.iter().any(|allowed| path.ends_with(allowed)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let body = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (number, line) in code(body) {
            // Whether it is a terminal is no writing.
            let line = line.replace("stderr().is_terminal()", "").replace("use_stderr()", "");
            if marks.iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{}:{number}", path.display()));
            }
        }
    }
    // Targets of `cargo bench` that run the program.
    wrong.retain(|place| {
        !place.contains("bench/kernel/main.rs") && !place.contains("bench/gpu/main.rs")
    });
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
            let is_function = [
                "fn ",
                "pub fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) async fn ",
                "pub(super) async fn ",
                "const fn ",
                "pub const fn ",
                "unsafe fn ",
                "pub unsafe fn ",
                "pub(super) unsafe fn ",
            ]
            .iter()
            .any(|start| words.starts_with(start));
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
    // In the benchmark: loops of one instruction, and reading as fast as possible.
    let allowed = ["arith", "shard", "engine", "bench/kernel/peaks", "bench/kernel/floors"];
    // The page that a forked child finds wiped; a call of the allocator's, which has no safe form.
    let allowed_files = ["src/scheme/process.rs", "src/server/memory.rs"];
    let mut wrong = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("bench")) {
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
        if path.ends_with("tests/tidy.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (i, line) in text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                wrong.push(format!("{}:{}: {mark}", path.display(), i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "unfinished:\n{}", wrong.join("\n"));
}
