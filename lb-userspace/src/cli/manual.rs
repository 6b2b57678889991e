//! What shells and `man` know of the command, made from its grammar.

use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory as _};
use clap_complete::Shell;

use super::{Args, Exit, Failure, Screen};

/// A shell.
#[derive(Clone, Debug, ClapArgs)]
pub struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// Where the pages go.
#[derive(Clone, Debug, ClapArgs)]
pub struct ManArgs {
    /// The directory, which has to be there
    directory: PathBuf,
}

/// What makes a shell complete the words of `lb`.
pub(super) fn completion(args: &CompletionArgs, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "lb", &mut script);
    screen.out.write_all(&script)?;
    Ok(())
}

/// A page for `lb` and one for each of its commands.
pub(super) fn pages(args: &ManArgs) -> Result<(), Failure> {
    let written = clap_mangen::generate_to(Args::command(), &args.directory);
    written.map_err(|error| {
        let directory = args.directory.display();
        Failure::new(Exit::Negative, format!("cannot write manual pages to {directory}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::lb;
    use super::*;

    #[test]
    fn every_shell_learns_the_commands() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let ran = lb(&["completion", shell]);
            assert_eq!(ran.exit, Exit::Ok, "{shell}: {}", ran.err);
            for word in ["backend", "drain", "rollback"] {
                assert!(ran.out.contains(word), "{shell} does not learn {word}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let ran = lb(&["man", folder.path().to_str().unwrap()]);
        assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
        let page = fs::read_to_string(folder.path().join("lb-backend-drain.1")).unwrap();
        assert!(page.contains("lb\\-backend\\-drain") && page.contains("timeout"), "{page}");
        assert!(folder.path().join("lb.1").is_file() && folder.path().join("lb-config-rollback.1").is_file());
        let nowhere = lb(&["man", "/nonexistent"]);
        assert_eq!(nowhere.exit, Exit::Negative);
        assert!(
            nowhere.err.starts_with("lb: cannot write manual pages to /nonexistent: "),
            "{}",
            nowhere.err
        );
    }
}
