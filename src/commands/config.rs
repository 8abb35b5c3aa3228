//! Where the options of a command that serves come from: a flag, else the environment, else a file,
//! else the default; and `sotto config`, which prints each value of `sotto serve` with its origin.
//!
//! What environment and file say becomes clap's default, so that one parser checks all layers;
//! [`serve::Args::check`] compares options with each other. The crates `figment` and `config` read
//! values through serde: the ranges, lists and names that clap checks would have to be declared a
//! second time for them.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command};
use sotto::text;
use toml::Value;

use super::{Ended, out, serve};
#[cfg(feature = "front-end")]
use super::{front_end, relay};

/// Prints the configuration of `sotto serve` that results from flags, environment and file, as a
/// file, and where each value comes from.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    serve: serve::Args,
}

/// A command whose options have these layers, and its options.
type Layered = (&'static str, fn() -> Command);

const LAYERED: &[Layered] = &[
    ("serve", of_serve),
    ("config", of_serve),
    ("doctor", of_serve),
    #[cfg(feature = "front-end")]
    ("relay", of_relay),
    #[cfg(feature = "front-end")]
    ("front-end", of_front_end),
];

/// The options of `sotto serve`, in their order, without their layers.
fn of_serve() -> Command {
    serve::Args::augment_args(Command::new("serve")).no_binary_name(true)
}

#[cfg(feature = "front-end")]
fn of_relay() -> Command {
    relay::Args::augment_args(Command::new("relay")).no_binary_name(true)
}

#[cfg(feature = "front-end")]
fn of_front_end() -> Command {
    front_end::Args::augment_args(Command::new("front-end")).no_binary_name(true)
}

/// The option that names the file; it cannot stand in one.
const FILE_OPTION: &str = "config";
/// A variable of the program that is no option.
const LOG_VARIABLE: &str = "SOTTO_LOG";
/// How similar an unknown name is to a known one that may have been meant, from 0 to 1.
const SIMILARITY_MIN: f64 = 0.8;

/// Where the options of a command came from.
#[derive(Default)]
pub(crate) struct Sources {
    matches: ArgMatches,
    layers: Layers,
    /// A sentence for each variable whose name is similar to that of an option.
    pub(crate) near_misses: Vec<String>,
}

/// For each key that is set below the flags: its values as a command line has them, and its origin.
type Layers = BTreeMap<String, (Vec<OsString>, String)>;

/// Reads the command line, and for [`LAYERED`] commands the other layers too.
pub(crate) fn parse<C: clap::Parser>(arguments: &[OsString]) -> Result<(C, Sources), clap::Error> {
    // What the command line lacks may stand in another layer.
    let read = |layers: Option<&Layers>| {
        let add = |command: Command, &(name, options): &Layered| {
            let options = options();
            let layer = |arg| match layers {
                Some(layers) => with_layers(arg, &options, layers),
                None => every_way(arg).required(false),
            };
            command.mut_subcommand(name, |inner| inner.mut_args(layer))
        };
        LAYERED.iter().fold(C::command(), add).try_get_matches_from(arguments)
    };
    let mut sources = Sources::default();
    let mut matches = read(None)?;
    if let Some((options, flags)) = layered(&matches) {
        let refuse = |message| clap::Error::raw(ErrorKind::ValueValidation, message + "\n");
        sources.layers = layers(&options, flags).map_err(refuse)?;
        matches = read(Some(&sources.layers))?;
        let (_, inner) = layered(&matches).unzip();
        sources.matches = inner.cloned().unwrap_or_default();
        let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        sources.near_misses = names.filter_map(|name| near_miss(&options, &name)).collect();
    }
    Ok((C::from_arg_matches(&matches)?, sources))
}

/// The options and the arguments of a [`LAYERED`] command.
fn layered(matches: &ArgMatches) -> Option<(Command, &ArgMatches)> {
    let (name, inner) = matches.subcommand()?;
    let (_, options) = LAYERED.iter().find(|(known, _)| *known == name)?;
    Some((options(), inner))
}

/// What environment and file say. A variable whose flag is given is not looked at.
fn layers(options: &Command, flags: &ArgMatches) -> Result<Layers, String> {
    let mut layers = Layers::new();
    for arg in options.get_arguments() {
        let Some(key) = arg.get_long() else { continue };
        let name = variable(key);
        let is_flag = flags.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        if let Some(text) = env::var_os(&name).filter(|_| !is_flag) {
            let values = check(options, key, vec![text])
                .map_err(|detail| format!("{name}: {detail}; unset it if it is not meant"))?;
            layers.insert(key.to_owned(), (values, format!("environment {name}")));
        }
    }
    let of_variable = layers.get(FILE_OPTION).map(|(values, _)| PathBuf::from(&values[0]));
    let path = flags.get_one(FILE_OPTION).cloned().or(of_variable);
    if let Some(path) = path {
        let file = path.display();
        let text = text::read(&path)
            .map_err(|error| format!("cannot read the configuration {file}: {error}"))?;
        for (key, values) in parse_file(options, &text).map_err(|error| format!("{file}{error}"))? {
            layers.entry(key).or_insert((values, format!("file {file}")));
        }
    }
    Ok(layers)
}

/// A variable that is no option's but is similar to one, as a sentence.
fn near_miss(options: &Command, name: &str) -> Option<String> {
    let key = name.to_lowercase().replace(['_', '.'], "-");
    let meant = variable(similar(options, key.strip_prefix("sotto-")?)?);
    (meant != name && name != LOG_VARIABLE)
        .then(|| format!("the variable {name} is not an option and has no effect: {meant} is one"))
}

fn similar<'a>(options: &'a Command, name: &str) -> Option<&'a str> {
    let known = options.get_arguments().filter_map(Arg::get_long);
    let known = known.map(|known| (strsim::jaro(name, known), known));
    let (similarity, known) = known.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (similarity > SIMILARITY_MIN).then_some(known)
}

fn option<'a>(options: &'a Command, key: &str) -> Option<&'a Arg> {
    options.get_arguments().find(|arg| arg.get_long() == Some(key))
}

fn variable(key: &str) -> String {
    format!("SOTTO_{}", key.replace('-', "_").to_uppercase())
}

/// An option with environment and file below its flag; others as they are.
fn with_layers(arg: Arg, options: &Command, layers: &Layers) -> Arg {
    let Some(key) = arg.get_long().and_then(|key| option(options, key)?.get_long()) else {
        return arg;
    };
    match layers.get(key) {
        // What another layer says need not be said by a flag.
        Some((values, _)) => every_way(arg).default_values(values).required(false),
        None => every_way(arg),
    }
}

/// A switch may be turned off, above a layer that turns it on; one text may hold a list.
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

/// The keys of a file's text with their values as flags would have them; errors continue its path.
fn parse_file(options: &Command, text: &str) -> Result<Vec<(String, Vec<OsString>)>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!(", line {}: {}", before.matches('\n').count() + 1, error.message())
    })?;
    let checked = |(key, value): (String, Value)| {
        let known = option(options, &key).filter(|_| key != FILE_OPTION);
        let arg = known.ok_or_else(|| {
            let hint = match similar(options, &key).filter(|&known| known != FILE_OPTION) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("keys are the options of `sotto {} --help`", options.get_name()),
            };
            format!(": unknown key `{key}`: {hint}")
        })?;
        let values = texts(arg, &value).and_then(|texts| check(options, &key, texts));
        let values = values.map_err(|detail| format!(": {key}: {detail}"))?;
        Ok((key, values))
    };
    table.into_iter().map(checked).collect()
}

/// A value as a command line would have it.
fn texts(arg: &Arg, value: &Value) -> Result<Vec<OsString>, String> {
    let found =
        |expected: &str| format!("found {} ({value}), expected {expected}", value.type_str());
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.into()),
        Value::Integer(_) | Value::Float(_) => Some(value.to_string().into()),
        _ => None,
    };
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(_)) => Ok(vec![value.to_string().into()]),
        (ArgAction::SetTrue, _) => Err(found("true or false")),
        (ArgAction::Append, Value::Array(many)) => {
            let one = |value| text(value).ok_or_else(|| found("a list of texts or numbers"));
            many.iter().map(one).collect()
        }
        _ => text(value).map(|text| vec![text]).ok_or_else(|| found("one text or number")),
    }
}

/// Has the option's own parser read what another layer says.
fn check(options: &Command, key: &str, values: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let flags = values.iter().map(|value| {
        let mut flag = OsString::from(format!("--{key}="));
        flag.push(value);
        flag
    });
    let Err(error) =
        options.clone().mut_args(|arg| every_way(arg).required(false)).try_get_matches_from(flags)
    else {
        return Ok(values);
    };
    let said = error.to_string();
    let said = said.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    Err(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

pub(crate) fn run(args: Args, sources: &Sources) -> Ended {
    args.serve.check()?;
    let options = of_serve();
    let mut lines = Vec::new();
    for arg in options.get_arguments() {
        let Some(key) = arg.get_long().filter(|&key| key != FILE_OPTION) else { continue };
        lines.push(sources.line(arg, key)?);
    }
    out::say(lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

impl Sources {
    /// An option as a line of a file, with its origin.
    fn line(&self, arg: &Arg, key: &str) -> Result<String, String> {
        let id = arg.get_id().as_str();
        let raw = self.matches.get_raw(id).into_iter().flatten();
        let values: Vec<Value> = raw.map(|text| value(arg, key, text)).collect::<Result<_, _>>()?;
        let line = match (arg.get_action(), &values[..]) {
            (_, []) => format!("# {key} ="),
            (ArgAction::Append, _) => format!("{key} = {}", Value::Array(values.clone())),
            (_, [.., last]) => format!("{key} = {last}"),
        };
        let source = match (self.matches.value_source(id), self.layers.get(key)) {
            _ if values.is_empty() => "not set",
            (Some(ValueSource::CommandLine), _) => "flag",
            (_, Some((_, origin))) => origin,
            _ => "default",
        };
        Ok(format!("{line:<48} # {source}"))
    }
}

/// The text of a flag as a file would have it.
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
    use super::*;

    #[test]
    fn values_are_what_a_flag_would_have() {
        let parsed = |text: &str| parse_file(&of_serve(), text).unwrap();
        let list = |values: &[&str]| values.iter().map(OsString::from).collect::<Vec<_>>();
        for (text, key, values) in [
            ("db = '/a b'", "db", list(&["/a b"])),
            ("listen = \"[::1]:4433\"", "listen", list(&["[::1]:4433"])),
            ("target-ms = 250", "target-ms", list(&["250"])),
            ("anyone-may-ask = true", "anyone-may-ask", list(&["true"])),
            ("gpu = [0, \"h200\"]", "gpu", list(&["0", "h200"])),
            ("gpu = 1", "gpu", list(&["1"])),
            ("gpu = []", "gpu", list(&[])),
        ] {
            assert_eq!(parsed(text), [(key.to_owned(), values)]);
        }
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
            let error = parse_file(&of_serve(), text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error:?}");
            assert_eq!(error.lines().count(), 1, "{text:?}: {error:?}");
        }
    }

    #[test]
    fn every_option_has_a_key_and_none_the_variable_of_the_log() {
        for (_, options) in LAYERED {
            for arg in options().get_arguments() {
                assert_ne!(variable(arg.get_long().unwrap()), LOG_VARIABLE);
            }
        }
    }
}
