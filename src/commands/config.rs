//! Where the options of `sotto serve` come from: a flag, else the environment, else a file, else
//! the default; and `sotto config`, which prints what holds and where each value came from.
//!
//! An option is defined once, in [`serve::Args`], and that is all it takes: its variable is
//! `SOTTO_` and the flag's name, its key in the file is the flag's name. What a file says becomes
//! clap's default, so that one parser reads all layers and clap knows which one a value is of. For
//! clap a default is nothing said, so what options want of each other is [`serve::Args::check`]'s.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command};
use sotto::text;
use toml::Value;

use super::{Ended, out, serve};

/// Prints the configuration of `sotto serve` that results from flags, environment and file, as a
/// file, and where each value comes from.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    serve: serve::Args,
}

/// The commands that take the server's options.
const COMMANDS: [&str; 3] = ["serve", "config", "doctor"];
/// The option that names the file; it cannot stand in one.
const FILE_OPTION: &str = "config";
/// How alike a known key is to an unknown one that may have meant it, of 1: clap's own measure.
const ALIKE_MIN: f64 = 0.7;
/// What options' variables begin with.
const PREFIX: &str = "SOTTO_";
/// Variables of the program's that are no options.
const OTHER_VARIABLES: [&str; 1] = ["SOTTO_LOG"];
/// How alike variables are without their prefix, of 1, before one may have meant the other.
const VARIABLES_ALIKE_MIN: f64 = 0.8;
/// Letters that may be wrong in a variable with another prefix.
const PREFIX_SLIPS_MAX: usize = 2;

/// Where the options of a command came from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    matches: ArgMatches,
    file: File,
    /// Variables that almost read like an option's, a sentence each.
    pub(crate) near_misses: Vec<String>,
}

/// What a file says, as it would stand on a command line; checked.
#[derive(Debug, Default)]
struct File {
    path: PathBuf,
    values: BTreeMap<String, Vec<String>>,
}

/// Reads the command line, and for the commands that serve or speak of it the other layers too.
///
/// # Errors
/// Also for `--help`: the error's `exit` prints it and ends well.
pub(crate) fn parse<C: clap::Parser>(arguments: &[OsString]) -> Result<(C, Sources), clap::Error> {
    let options = options();
    let read = |file: &File| {
        let layered = |command: Command| command.mut_args(|arg| with_layers(arg, &options, file));
        let add = |command: Command, name| command.mut_subcommand(name, layered);
        COMMANDS.iter().fold(C::command(), add).try_get_matches_from(arguments)
    };
    let mut sources = Sources::default();
    let read = |file: &File| read(file).map_err(|error| by_variable(&options, arguments, error));
    let mut matches = read(&sources.file)?;
    if let Some(path) = of_server(&matches).and_then(|inner| inner.get_one::<PathBuf>(FILE_OPTION))
    {
        let refuse = |message| clap::Error::raw(ErrorKind::ValueValidation, message + "\n");
        sources.file = File::read(path).map_err(refuse)?;
        matches = read(&sources.file)?;
    }
    if let Some(inner) = of_server(&matches) {
        sources.matches = inner.clone();
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        sources.near_misses = names.filter_map(|name| near_miss(&options, &name)).collect();
    }
    Ok((C::from_arg_matches(&matches)?, sources))
}

/// What was said to a command that takes the server's options.
fn of_server(matches: &ArgMatches) -> Option<&ArgMatches> {
    let (name, inner) = matches.subcommand()?;
    COMMANDS.contains(&name).then_some(inner)
}

/// The same error, or, where it is a variable's value that is wrong, one that names the variable.
fn by_variable(options: &Command, arguments: &[OsString], error: clap::Error) -> clap::Error {
    let command = arguments.get(1).and_then(|command| command.to_str());
    if !command.is_some_and(|command| COMMANDS.contains(&command)) || !error.use_stderr() {
        return error;
    }
    let wrong = |arg: &Arg| {
        let key = arg.get_long()?;
        let flag = format!("--{key}");
        let is_flag = |argument: &OsString| {
            let name = argument.to_str().and_then(|text| text.split('=').next());
            name == Some(&*flag)
        };
        if arguments.iter().any(is_flag) {
            return None; // the variable was not looked at
        }
        let name = variable(key);
        let text = std::env::var(&name).ok()?;
        let texts = match arg.get_action() {
            ArgAction::Append => text.split(',').map(ToOwned::to_owned).collect(),
            _ => vec![text],
        };
        let detail = check(options, key, texts).err()?;
        Some(format!("{name}: {detail}; unset it if it is not meant\n"))
    };
    let message = options.get_arguments().find_map(wrong);
    message.map_or(error, |message| clap::Error::raw(ErrorKind::ValueValidation, message))
}

/// A variable that is none of an option's but almost reads like one, as a sentence.
fn near_miss(options: &Command, name: &str) -> Option<String> {
    let keys = options.get_arguments().filter_map(Arg::get_long);
    let known: Vec<String> = keys.map(variable).collect();
    if known.iter().any(|known| known == name) || OTHER_VARIABLES.contains(&name) {
        return None;
    }
    let upper = name.to_uppercase().replace(['-', '.'], "_");
    let meant = known.iter().map(|known| (strsim::jaro(&upper, known), known));
    let (_, meant) = meant.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let alike = match (upper.strip_prefix(PREFIX), meant.strip_prefix(PREFIX)) {
        (Some(name), Some(meant)) => strsim::jaro(name, meant) > VARIABLES_ALIKE_MIN,
        // The prefix itself is mistyped.
        _ => strsim::osa_distance(&upper, meant) <= PREFIX_SLIPS_MAX,
    };
    alike.then(|| format!("the variable {name} is no option's and has no effect: {meant} is one"))
}

/// The server's options, in their order, without their layers.
fn options() -> Command {
    serve::Args::augment_args(Command::new("serve")).no_binary_name(true)
}

/// The option of the server's with this long name.
fn option<'a>(options: &'a Command, key: &str) -> Option<&'a Arg> {
    options.get_arguments().find(|arg| arg.get_long() == Some(key))
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('-', "_").to_uppercase())
}

/// An option of the server's with environment and file below its flag; others as they are.
fn with_layers(arg: Arg, options: &Command, file: &File) -> Arg {
    let key = arg.get_long().and_then(|key| option(options, key)?.get_long());
    let Some(key) = key else { return arg };
    let arg = every_way(arg).env(variable(key)).hide_env(true);
    match file.values.get(key) {
        Some(values) => arg.default_values(values),
        None => arg,
    }
}

/// Switches may be said to be off, above a layer that has them on; one text may hold a list.
fn every_way(arg: Arg) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_name("BOOL")
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true),
        ArgAction::Append => arg.value_delimiter(','),
        _ => arg,
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, String> {
        let text = text::read(path).map_err(|error| {
            format!("cannot read the configuration {}: {error}", path.display())
        })?;
        let values = parse_file(&text).map_err(|error| format!("{}{error}", path.display()))?;
        Ok(Self { path: path.to_owned(), values })
    }
}

/// Keys with their values as flags would have them; errors continue a path.
fn parse_file(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!(", line {}: {}", before.matches('\n').count() + 1, error.message())
    })?;
    let options = options();
    let checked = |(key, value): (String, Value)| {
        let known = option(&options, &key).filter(|_| key != FILE_OPTION);
        let arg = known.ok_or_else(|| format!(": {}", unknown(&options, &key)))?;
        let texts = texts(arg, &value).and_then(|texts| check(&options, &key, texts));
        let texts = texts.map_err(|detail| format!(": {key}: {detail}"))?;
        Ok((key, texts))
    };
    table.into_iter().map(checked).collect()
}

fn unknown(options: &Command, key: &str) -> String {
    let known = options.get_arguments().filter_map(Arg::get_long);
    let mut near: Vec<(f64, &str)> = known
        .filter(|&known| known != FILE_OPTION)
        .map(|known| (strsim::jaro(key, known), known))
        .filter(|&(alike, _)| alike > ALIKE_MIN)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<String> = near.iter().take(3).map(|(_, key)| format!("`{key}`")).collect();
    let hint = match near.is_empty() {
        true => "keys are the options of `sotto serve --help`".to_owned(),
        false => format!("did you mean {}?", near.join(" or ")),
    };
    format!("unknown key `{key}`: {hint}")
}

/// A value as a command line would have it.
fn texts(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let found =
        |expected: &str| format!("found {} ({value}), expected {expected}", value.type_str());
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(_)) => Ok(vec![value.to_string()]),
        (ArgAction::SetTrue, _) => Err(found("true or false")),
        (ArgAction::Append, Value::Array(many)) => {
            let one = |value| text(value).ok_or_else(|| found("a list of texts or numbers"));
            many.iter().map(one).collect()
        }
        _ => text(value).map(|text| vec![text]).ok_or_else(|| found("one text or number")),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Has the option's own parser read what a file says.
fn check(options: &Command, key: &str, texts: Vec<String>) -> Result<Vec<String>, String> {
    let flags = texts.iter().map(|text| format!("--{key}={text}"));
    let read = options.clone().mut_args(every_way).try_get_matches_from(flags);
    let said = read.err().map(|error| error.to_string());
    match said.as_deref().and_then(|said| said.split("\n\n").next()) {
        None => Ok(texts),
        Some(said) => {
            let words: Vec<&str> = said.trim_start_matches("error: ").split_whitespace().collect();
            Err(words.join(" "))
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: Args, sources: &Sources) -> Ended {
    args.serve.check()?;
    let options = options();
    let mut lines = Vec::new();
    for arg in options.get_arguments() {
        let Some(key) = arg.get_long().filter(|&key| key != FILE_OPTION) else { continue };
        let (line, source) = sources.line(arg, key)?;
        lines.push(format!("{line:<48} # {source}"));
    }
    out::say(lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

impl Sources {
    /// An option as a line of a file, and which layer it is of.
    fn line(&self, arg: &Arg, key: &str) -> Result<(String, String), String> {
        let id = arg.get_id().as_str();
        let source = match self.matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag".to_owned(),
            Some(ValueSource::EnvVariable) => format!("environment {}", variable(key)),
            Some(_) if self.file.values.contains_key(key) => {
                format!("file {}", self.file.path.display())
            }
            _ => "default".to_owned(),
        };
        let raw = self.matches.get_raw(id).into_iter().flatten();
        let values: Result<Vec<Value>, String> = raw.map(|text| value(arg, key, text)).collect();
        let line = match (arg.get_action(), &values?[..]) {
            (_, []) => return Ok((format!("# {key} ="), "not set".to_owned())),
            (ArgAction::Append, many) => format!("{key} = {}", Value::Array(many.to_vec())),
            (_, many) => format!("{key} = {}", many[many.len() - 1]),
        };
        Ok((line, source))
    }
}

/// A flag's text as a file would have it.
fn value(arg: &Arg, key: &str, text: &OsStr) -> Result<Value, String> {
    let text = text.to_str().ok_or_else(|| {
        format!("--{key} {}: not UTF-8, which a configuration has to be", text.display())
    })?;
    let number = text.parse().ok().filter(|number: &i64| number.to_string() == text);
    Ok(match (arg.get_action(), number) {
        (ArgAction::SetTrue, _) => Value::Boolean(text == "true"),
        (_, Some(number)) => Value::Integer(number),
        (_, None) => Value::String(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[allow(dead_code)]
    enum Program {
        Serve(serve::Args),
        Config(serve::Args),
        Doctor(serve::Args),
    }

    #[test]
    fn values_are_what_a_flag_would_have() {
        let parsed = parse_file(
            "db = '/a b'\nlisten = \"[::1]:4433\"\ntarget-ms = 250\nanyone-may-ask = true\n\
             gpu = [0, \"h200\"]\nisa = 'avx2'\n",
        );
        let list = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = [
            ("db", list(&["/a b"])),
            ("listen", list(&["[::1]:4433"])),
            ("target-ms", list(&["250"])),
            ("anyone-may-ask", list(&["true"])),
            ("gpu", list(&["0", "h200"])),
            ("isa", list(&["avx2"])),
        ];
        let expected = expected.map(|(key, values)| (key.to_owned(), values));
        assert_eq!(parsed, Ok(BTreeMap::from(expected)));
        // One of a list needs no brackets.
        assert_eq!(parse_file("gpu = 1").unwrap()["gpu"], ["1"]);
        assert_eq!(parse_file("gpu = []").unwrap()["gpu"], [""; 0]);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_with_its_key() {
        for (text, expected) in [
            ("taget-ms = 1", ": unknown key `taget-ms`: did you mean `target-ms`"),
            ("target_ms = 1", ": unknown key `target_ms`: did you mean `target-ms`"),
            ("qqq = 1", ": unknown key `qqq`: keys are the options of `sotto serve --help`"),
            ("config = 'x'", ": unknown key `config`"),
            ("help = true", ": unknown key `help`"),
            ("[serve]\ndb = 'x'", ": unknown key `serve`"),
            ("db = 'x'\n\ndb =", ", line 3: "),
            ("db = 'x'\ndb = 'y'", ", line 2: duplicate key"),
            ("target-ms = 'soon'", ": target-ms: invalid value 'soon' for '--target-ms <MS>'"),
            ("target-ms = 0", ": target-ms: invalid value '0'"),
            ("target-ms = true", ": target-ms: found boolean (true), expected one text or number"),
            ("target-ms = [1]", ": target-ms: found array ([1]), expected one text or number"),
            ("db = {}", ": db: found table"),
            ("db = 2026-01-01", ": db: found datetime"),
            ("db = ''", ": db: a value is required"),
            ("listen = '4433'", ": listen: invalid value '4433'"),
            ("gpu = [[0]]", ": gpu: found array ([[0]]), expected a list of texts or numbers"),
            ("engine = 'tpu'", ": engine: invalid value 'tpu'"),
            ("anyone-may-ask = 'true'", ": anyone-may-ask: found string (\"true\"), expected true"),
            ("anyone-may-ask = 1", ": anyone-may-ask: found integer (1), expected true or false"),
        ] {
            let error = parse_file(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error:?}");
            assert_eq!(error.lines().count(), 1, "{text:?}: {error:?}");
        }
    }

    #[test]
    fn a_switch_is_a_switch_and_may_be_said_to_be_off() {
        let parsed = |flags: &[&str]| {
            let arguments: Vec<OsString> =
                ["sotto", "config"].iter().chain(flags).map(OsString::from).collect();
            let (_, sources) = parse::<Program>(&arguments)?;
            Ok::<_, clap::Error>(*sources.matches.get_one::<bool>("anyone_may_ask").unwrap())
        };
        assert!(!parsed(&[]).unwrap());
        assert!(parsed(&["--anyone-may-ask"]).unwrap());
        assert!(parsed(&["--anyone-may-ask", "--db", "x"]).unwrap());
        assert!(!parsed(&["--anyone-may-ask=false"]).unwrap());
        assert!(parsed(&["--anyone-may-ask", "false"]).is_err());
        assert!(parsed(&["--anyone-may-ask=yes"]).is_err());
    }

    #[test]
    fn a_variable_that_almost_reads_like_an_options_is_named_with_it() {
        let options = options();
        for (name, meant) in [
            ("SOTTO_TARGT_MS", "SOTTO_TARGET_MS"),
            ("SOTTO_TARGETMS", "SOTTO_TARGET_MS"),
            ("SOTTO_TARGET-MS", "SOTTO_TARGET_MS"),
            ("sotto_target_ms", "SOTTO_TARGET_MS"),
            ("SOTTO_LISTN", "SOTTO_LISTEN"),
            ("SOTO_LISTEN", "SOTTO_LISTEN"),
            ("SOTTOLISTEN", "SOTTO_LISTEN"),
            ("SOTTO_CLIENTCA", "SOTTO_CLIENT_CA"),
            ("SOTTO_THREAD", "SOTTO_THREADS"),
        ] {
            let said = near_miss(&options, name).unwrap_or_else(|| panic!("{name}"));
            assert!(said.contains(name) && said.ends_with(&format!("{meant} is one")), "{said}");
        }
        for name in [
            "SOTTO_LISTEN",
            "SOTTO_LOG",
            "HOME",
            "PATH",
            "LISTEN_FDS",
            // A cluster's, for a service named sotto.
            "SOTTO_SERVICE_HOST",
            "SOTTO_SERVICE_PORT",
            "SOTTO_PORT",
            "SOTTO_PORT_4433_UDP",
            "SOTTO_PORT_4433_UDP_ADDR",
            "SOTTO_PORT_4433_UDP_PROTO",
            // The tests' own.
            "SOTTO_TEST_GPU",
            "SOTTO_TEST_SEED",
            "SOTTO_SEED",
            "SOTTO_COMMIT",
        ] {
            assert_eq!(near_miss(&options, name), None, "{name}");
        }
    }

    #[test]
    fn every_option_has_a_key_and_a_variable_of_its_own() {
        let options = options();
        let keys: Vec<&str> = options.get_arguments().filter_map(Arg::get_long).collect();
        assert_eq!(keys.len(), options.get_arguments().count(), "an option without long name");
        let mut variables: Vec<String> = keys.iter().map(|key| variable(key)).collect();
        // What means something else already: the log's filter.
        assert!(!variables.contains(&"SOTTO_LOG".to_owned()));
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), keys.len());
    }
}
