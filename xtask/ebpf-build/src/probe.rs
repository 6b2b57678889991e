//! Asking another program a question, where "it is not there" and "it failed" are the same answer.

use std::process::{Command, Stdio};

/// What `command` prints on standard output, if it runs and succeeds.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
