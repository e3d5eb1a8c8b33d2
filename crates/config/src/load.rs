//! Entry points: a command line, a file, or a plugin's environment becomes a checked configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use fulmar_wire::kcptun2016::Variant;

use crate::argv::{self, Asked};
use crate::kcptun_file::SettingsFile;
use crate::options::{Id, Side};
use crate::origin::Origin;
use crate::problem::{Failure, Place, Problem};
use crate::resolve::{Loaded, resolve};
use crate::sip003::{self, Plugin};
use crate::values::{Raw, Values};

/// The variable that is the default of `--key`.
pub const KEY_VARIABLE: &str = "KCPTUN_KEY";

/// The environment variables that matter, as an argument so that tests need not touch the process.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let names = sip003::VARIABLES
            .into_iter()
            .chain([sip003::OPTIONS, KEY_VARIABLE]);
        let variables = names
            .filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)))
            .collect();
        Self { variables }
    }

    fn get(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).cloned()
    }

    fn plugin(&self) -> Result<Option<Plugin>, Problem> {
        Plugin::read(|name| self.get(name))
    }
}

impl<K: Into<String>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(variables: T) -> Self {
        Self {
            variables: variables
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        }
    }
}

/// What a kcptun command line comes to.
#[derive(Clone, PartialEq, Debug)]
pub enum Invocation {
    /// `--help`; with `--compat`, also for which kcptun of 2016.
    Help(Option<Variant>),
    /// `--version`.
    Version,
    /// Run this.
    Run(Box<Loaded>),
}

/// The side that a shadowsocks host wants its plugin to be, or `None` when no such host started us.
///
/// It is a server when `SS_PLUGIN_OPTIONS` has `server`, and otherwise a client.
///
/// # Errors
/// When the variables are not readable.
pub fn plugin_side(environment: &Environment) -> Result<Option<Side>, Failure> {
    let plugin = environment.plugin()?;
    Ok(plugin.map(|plugin| plugin.side().unwrap_or(Side::Client)))
}

/// Whose command line `args` is, where the name of the program does not tell: by flags that only one side has (`-r`, `-t`), then by a
/// shadowsocks host, then by the file. `None`: nothing tells, and only help or the version is asked for.
///
/// # Errors
/// When nothing tells, both sides are told, or the file cannot be read.
pub fn side_of(args: &[OsString], environment: &Environment) -> Result<Option<Side>, Failure> {
    let hints = argv::hints(args);
    match &hints.only {
        [Some(_), None] => return Ok(Some(Side::Client)),
        [None, Some(_)] => return Ok(Some(Side::Server)),
        [Some(client), Some(server)] => {
            let message =
                format!("{client} is a flag of the client and {server} one of the server");
            let problem = Problem::error(Place::CommandLine, message);
            return Err(problem.hint("give the flags of one of them").into());
        }
        [None, None] => {}
    }
    if let Some(side) = plugin_side(environment)? {
        return Ok(Some(side));
    }
    if let Some(path) = &hints.file {
        return Ok(Some(SettingsFile::open(Path::new(path))?.side()?));
    }
    if hints.asks {
        return Ok(None);
    }
    let problem = Problem::error(
        Place::CommandLine,
        "nothing tells whether this is a client (-r) or a server (-t)",
    );
    Err(problem.hint("write -r HOST:PORT or -t HOST:PORT").into())
}

/// Reads kcptun's command line (`args` without the program's name), the file that it names, and the environment.
///
/// Precedence as in kcptun (docs/spec/kcptun.md, section 3.1, 3.6 and 16), highest first: plugin variables, the file, the command line, `KCPTUN_KEY`, defaults.
///
/// # Errors
/// Every mistake of the command line, the file and the values, found before anything is opened but files.
pub fn from_args(
    side: Side,
    args: &[OsString],
    environment: &Environment,
) -> Result<Invocation, Failure> {
    let mut problems = Vec::new();
    let (mut values, plugin) = start(side, environment, &mut problems)?;
    let asked = argv::read(args, &mut values, &mut problems);
    if problems.iter().any(|problem| problem.is_fatal(false)) {
        return Err(Failure { problems });
    }
    match asked {
        Asked::Help => return Ok(Invocation::Help(values.compat())),
        Asked::Version => return Ok(Invocation::Version),
        Asked::Run => {}
    }
    let file = match &values.given(Id::Config).raw {
        Raw::Text(path) if !path.is_empty() => Some(path.clone()),
        _ => None,
    };
    if let Some(path) = file {
        match SettingsFile::open(Path::new(&path)) {
            Ok(file) => file.apply(&mut values, &mut problems),
            Err(problem) => {
                problems.push(problem);
                return Err(Failure { problems });
            }
        }
    }
    finish(values, plugin, problems).map(|loaded| Invocation::Run(Box::new(loaded)))
}

/// Reads the configuration file at `path`; without `side` its content tells whose it is.
///
/// # Errors
/// Every mistake of the file and its values, found before anything is opened but files.
pub fn from_file(
    path: &Path,
    side: Option<Side>,
    environment: &Environment,
) -> Result<Loaded, Failure> {
    from_settings(SettingsFile::open(path)?, path, side, environment)
}

/// As [`from_file`], for a file whose content has been read already; `path` is what messages call it.
///
/// # Errors
/// Every mistake of the file and its values.
pub fn from_bytes(
    path: &Path,
    content: &[u8],
    side: Option<Side>,
    environment: &Environment,
) -> Result<Loaded, Failure> {
    from_settings(SettingsFile::parse(path, content)?, path, side, environment)
}

fn from_settings(
    file: SettingsFile<'_>,
    path: &Path,
    side: Option<Side>,
    environment: &Environment,
) -> Result<Loaded, Failure> {
    let side = match side {
        Some(side) => side,
        None => file.side()?,
    };
    let mut problems = Vec::new();
    let (mut values, plugin) = start(side, environment, &mut problems)?;
    let origin = Origin::Flag("-c".into());
    values.set(Id::Config, Raw::Text(path.into()), origin);
    file.apply(&mut values, &mut problems);
    finish(values, plugin, problems)
}

/// The lowest layers.
fn start(
    side: Side,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> Result<(Values, Option<Plugin>), Failure> {
    let plugin = environment.plugin()?;
    if let Some(asked) = plugin
        .as_ref()
        .and_then(Plugin::side)
        .filter(|asked| *asked != side)
    {
        problems.push(
            Problem::error(
                Place::Value(Origin::PluginOption("server".into())),
                format!(
                    "the options ask for a {}, but this was started as a {}",
                    asked.name(),
                    side.name()
                ),
            )
            .hint("remove the sub-command or the option"),
        );
    }
    let mut values = Values::defaults(side, plugin.is_some());
    // Also an empty one counts, as in kcptun.
    if let Some(key) = environment.get(KEY_VARIABLE) {
        values.set(
            Id::Key,
            Raw::Text(key),
            Origin::Environment(KEY_VARIABLE.into()),
        );
    }
    Ok((values, plugin))
}

/// The highest layer, and the checks.
fn finish(
    mut values: Values,
    plugin: Option<Plugin>,
    mut problems: Vec<Problem>,
) -> Result<Loaded, Failure> {
    let is_plugin = plugin.is_some();
    if let Some(plugin) = plugin {
        plugin.apply(&mut values, &mut problems);
    }
    values.settle_defaults();
    resolve(&values, is_plugin, problems)
}
