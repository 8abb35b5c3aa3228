//! No circle of imports is inside a folder of sources: a file does not use a file that uses it,
//! directly or through others. A folder counts as one file of the folder above it. What a `mod.rs`
//! only declares or re-exports is not used by it, and who imports it from there uses the file that
//! defines it. The order of modules excludes circles between the modules themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{code, is_test_file, rust_files, without_tests};

/// The names on the way to a module or an item, such as `["engine", "gpu", "round"]`.
type Names = Vec<String>;

/// One name that a file imports.
struct Import {
    is_public: bool,
    name: String,
    path: Names,
}

fn names(path: &str) -> Names {
    let names = path.split("::").map(|name| name.trim().to_owned());
    names.filter(|name| !["self", "*", ""].contains(&&**name)).collect()
}

/// The imports in the tree of a `use`, added to those found.
fn add_imports(is_public: bool, before: &str, tree: &str, found: &mut Vec<Import>) {
    if let Some((start, rest)) = tree.split_once('{') {
        let mut depth = 0;
        let parts = rest[..rest.rfind('}').unwrap()].split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        for part in parts.filter(|part| !part.trim().is_empty()) {
            add_imports(is_public, &format!("{before}{}", start.trim()), part, found);
        }
    } else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = names(&format!("{before}{path}"));
        let name = if name.is_empty() { &path[path.len() - 1] } else { name.trim() };
        let name = name.to_owned();
        found.push(Import { is_public, name, path });
    }
}

/// What a file imports, and its code without that, without comments and without its tests.
fn split_imports(text: &str) -> (Vec<Import>, String) {
    let (mut found, mut rest) = (Vec::new(), String::new());
    let mut lines = code(without_tests(text)).map(|(_, line)| line);
    while let Some(line) = lines.next() {
        let statement = line.trim().split_once("use ");
        let is_use = |before: &str| ["", "pub ", "pub(crate) ", "pub(super) "].contains(&before);
        let Some((before, tree)) = statement.filter(|(before, tree)| {
            // A line of a text may begin with this word, too.
            is_use(before) && (tree.contains("::") || tree.ends_with([';', '{']))
        }) else {
            rest.extend([line, "\n"]);
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.ends_with(';') {
            tree.push_str(lines.next().unwrap().trim());
        }
        add_imports(!before.is_empty(), "", tree.trim_end_matches(';'), &mut found);
    }
    (found, rest)
}

/// The files of a package, and what each imports.
struct Package {
    library: &'static str,
    files: BTreeMap<Names, Vec<Import>>,
}

impl Package {
    /// The file that defines what this path means in this file.
    fn resolve(&self, file: &Names, path: &Names, depth: usize) -> Names {
        let mut at = file.clone();
        for name in path {
            match &**name {
                "crate" => at.clear(),
                name if name == self.library => at.clear(),
                "super" => {
                    at.pop();
                }
                _ => {
                    at.push(name.clone());
                    if self.files.contains_key(&at) {
                        continue;
                    }
                    at.pop();
                    let imports = self.files.get(&at).into_iter().flatten();
                    let import = imports.clone().find(|import| import.name == *name);
                    return match import.filter(|import| import.path != *path && depth < 8) {
                        Some(import) => self.resolve(&at, &import.path, depth + 1),
                        None => at,
                    };
                }
            }
        }
        at
    }
}

/// What is imported inside folders: the folder, the file that imports, the file that is imported,
/// and the names.
type Edges = BTreeMap<(String, String, String), BTreeSet<String>>;

/// The edges of all folders below the folder of a package's sources.
fn edges(folder: &str, library: &'static str) -> Edges {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut package = Package { library, files: BTreeMap::new() };
    let mut paths = Vec::new();
    for file in rust_files(folder).into_iter().filter(|file| !is_test_file(file)) {
        let inner = file.strip_prefix(&root).unwrap().with_extension("");
        let mut name: Names = inner.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        name.pop_if(|last| ["mod", "lib"].contains(&&**last));
        let (imports, rest) = split_imports(&fs::read_to_string(&file).unwrap());
        let is_inner = |c: char| c.is_alphanumeric() || "_:".contains(c);
        let words: BTreeSet<&str> = rest.split(|c| !is_inner(c)).collect();
        // A re-export is used where the rest of the file names it.
        let is_named = |name: &str| words.iter().any(|word| word.split("::").next() == Some(name));
        let used = imports.iter().filter(|import| !import.is_public || is_named(&import.name));
        paths.extend(used.map(|import| (name.clone(), import.path.clone())));
        let qualified = words.iter().filter(|word| word.contains("::"));
        paths.extend(qualified.map(|word| (name.clone(), names(word))));
        package.files.insert(name, imports);
    }
    let mut edges = Edges::new();
    for (file, path) in paths {
        let target = package.resolve(&file, &path, 0);
        let common = file.iter().zip(&target).take_while(|(a, b)| a == b).count();
        let child = |name: &Names| name.get(common).map_or("mod".to_owned(), String::clone);
        let (from, to) = (child(&file), child(&target));
        if common > 0 && from != to {
            let edge = (format!("{folder}/{}", file[..common].join("/")), from, to);
            edges.entry(edge).or_default().insert(path.join("::"));
        }
    }
    edges
}

/// Whether a file of a folder uses another, directly or through others.
fn uses(edges: &Edges, folder: &str, file: &str, other: &str) -> bool {
    let (mut found, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(file) = next.pop() {
        let of_file = edges.keys().filter(|(place, from, _)| place == folder && from == file);
        next.extend(of_file.map(|(_, _, to)| &**to).filter(|to| found.insert(*to)));
    }
    found.contains(other)
}

#[test]
fn no_circle_of_imports_is_inside_a_folder() {
    let mut edges = edges("src", "sotto");
    edges.append(&mut self::edges("bench/src", "sotto_bench"));
    let mut circles = String::new();
    for ((folder, from, to), names) in &edges {
        if uses(&edges, folder, to, from) {
            circles += &format!("\n{folder}: {from} uses {to}: {names:?}");
        }
    }
    assert!(circles.is_empty(), "imports that form circles:{circles}");
}
