//! `lb config`: files checked, compared and applied, and the way back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use super::{Exit, Failure, Screen, block_on, screens};
use crate::client::Client;
use crate::config::{self, keys, parse_duration, render, render_settings};
use crate::view::ConfigApplied;

/// Check, compare and apply configurations, and go back to earlier ones.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file and conf.d beside it; needs neither root nor a daemon
    #[command(after_help = "Example:\n  lb config check lb.toml && systemctl reload lb")]
    Check {
        /// The configuration file
        file: PathBuf,
    },
    /// Explain a key of the files, or list all keys; needs neither root nor a daemon
    #[command(
        after_help = "Examples:\n  lb config explain\n  lb config explain service.health\n  lb config explain burst\n\nA key is named by the end \
                      of its path: service.limit.burst, limit.burst and burst are the same."
    )]
    Explain {
        /// A key or a table, as the list names them
        #[arg(value_name = "KEY", conflicts_with = "markdown")]
        name: Option<String>,
        /// Print all of it as one page of Markdown
        #[arg(long)]
        markdown: bool,
    },
    /// Show the configuration in force, as a file would have it
    #[command(
        after_help = "Examples:\n  lb config show > lb.toml\n  lb config show | grep -A12 'name = \"web\"'"
    )]
    Show,
    /// Show what a file, or else the daemon's own files, would change, and what that would cost; exit code 1 if anything
    #[command(
        after_help = "Examples:\n  lb config diff new.toml\n  lb config diff\n\nWithout a file it shows how far commands have led away from \
                      the daemon's files:\n`-` is in force and not in the files."
    )]
    Diff {
        /// The configuration file; conf.d beside it is read, too
        file: Option<PathBuf>,
    },
    /// Put a file, or else the daemon's own files, in force: whole or not at all
    #[command(
        after_help = "Examples:\n  lb config apply\n  lb config apply new.toml --confirm-within 5m && ./probe && lb config \
                      confirm\n\nWhat a file does not say goes away. Keys of [daemon] cannot change without a restart."
    )]
    Apply {
        /// The configuration file; conf.d beside it is read, too
        file: Option<PathBuf>,
        /// Undo it by itself unless `lb config confirm` comes within this time
        #[arg(long, value_name = "DURATION", value_parser = parse_patience)]
        confirm_within: Option<Duration>,
    },
    /// List the last generations: when they were made, by whom, and what they changed
    #[command(after_help = "Example:\n  lb config history")]
    History,
    /// Go back to an earlier generation, or to the one before
    #[command(after_help = "Examples:\n  lb config rollback\n  lb config rollback 41")]
    Rollback {
        /// Its number, as `lb config history` lists it
        generation: Option<u64>,
    },
    /// Keep what was applied with --confirm-within
    #[command(after_help = "Example:\n  lb config confirm")]
    Confirm,
}

fn parse_patience(text: &str) -> Result<Duration, String> {
    let patience = parse_duration(text).map_err(|error| error.to_string())?;
    let range = Duration::from_secs(1)..=Duration::from_hours(24);
    if range.contains(&patience) { Ok(patience) } else { Err("expected from 1s to 24h".to_owned()) }
}

/// Runs one of the commands.
pub(super) fn run(command: &ConfigCommand, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let applied: ConfigApplied = match command {
        ConfigCommand::Check { file } => return check(file, screen),
        ConfigCommand::Explain { name, markdown } => return explain(name.as_deref(), *markdown, screen),
        ConfigCommand::Show => {
            let toml = block_on(client.config())??;
            return screen.show(&Shown { toml }, |shown| shown.toml.clone());
        }
        ConfigCommand::Diff { file } => return diff(file.as_deref(), client, screen),
        ConfigCommand::History => {
            let generations = block_on(client.history())??;
            return screen.show_fitted(&generations[..], screens::history);
        }
        ConfigCommand::Apply { file, confirm_within } => {
            let text = file.as_deref().map(text_of).transpose()?;
            block_on(client.apply_config(text, *confirm_within))??
        }
        ConfigCommand::Rollback { generation } => block_on(client.roll_back(*generation))??,
        ConfigCommand::Confirm => block_on(client.confirm())??,
    };
    screen.show(&applied, screens::config_applied)
}

/// What a key means, or which keys there are.
fn explain(name: Option<&str>, markdown: bool, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if markdown {
        screen.out.write_all(keys::markdown().as_bytes())?;
        return Ok(());
    }
    let explained = keys::explain(name).map_err(|instead| {
        let name = name.unwrap_or_default();
        Failure::new(Exit::NotFound, format!("no key or table of the configuration is named {name}{instead}"))
    })?;
    screen.show_fitted(&explained, screens::explained)
}

/// What `lb config show -o json` says.
#[derive(Serialize)]
struct Shown {
    toml: String,
}

/// What `lb config check -o json` says of a good file.
#[derive(Serialize)]
struct Checked<'c> {
    file: &'c Path,
    interfaces: &'c [String],
    services: usize,
    backends: usize,
    prefixes: usize,
}

fn check(file: &Path, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let config =
        config::load(file).map_err(|error| Failure { exit: Exit::Negative, message: error.to_string() })?;
    let checked = Checked {
        file,
        interfaces: &config.daemon.interfaces,
        services: config.services.len(),
        backends: config.services.iter().map(|service| service.backends.len()).sum(),
        prefixes: config.lists.len(),
    };
    screen.show(&checked, |_| screens::checked(&file.display().to_string(), &config))
}

fn diff(file: Option<&Path>, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let text = file.map(text_of).transpose()?;
    let diff = block_on(client.diff_config(text))??;
    screen.show(&diff, screens::config_diff)?;
    if diff.is_empty() { Ok(()) } else { Err(Failure { exit: Exit::Negative, message: String::new() }) }
}

/// What a file and the others beside it say, as one text: the daemon reads no files for others.
fn text_of(file: &Path) -> Result<String, Failure> {
    let config =
        config::load(file).map_err(|error| Failure { exit: Exit::Refused, message: error.to_string() })?;
    Ok(format!("{}\n{}", render_settings(&config.daemon), render(&config.desired())))
}
