//! `lb events`: what happens, a line each.

use clap::Args as ClapArgs;

use super::output::Output;
use super::units::moment;
use super::{Exit, Failure, Screen, block_on};
use crate::client::Client;
use crate::view::Event;

/// What to follow.
#[derive(Debug, ClapArgs)]
pub struct EventsArgs {
    /// Go on after the event of this id, which -o json and -o name tell [default: begin now]
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// End after so many events [default: when the daemon ends]
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(super) fn run(args: &EventsArgs, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    block_on(follow(args, client, screen))?
}

async fn follow(args: &EventsArgs, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut events = client.events(args.after.as_deref()).await?;
    let mut last = args.after.clone();
    let mut left = args.count;
    while left != Some(0) {
        let Some(event) = events.next().await else { return Err(ended(last.as_deref())) };
        screen.out.write_all(render(&event, screen.output)?.as_bytes())?;
        screen.out.flush()?;
        left = left.map(|left| left - 1);
        last = Some(event.id).filter(|id| !id.is_empty()).or(last);
    }
    Ok(())
}

fn render(event: &Event, output: Output) -> Result<String, Failure> {
    Ok(match output {
        Output::Table | Output::Wide => format!("{}  {event}\n", moment(event.time)),
        // A line each: that is what follows a stream.
        Output::Json => serde_json::to_string(event).map_err(std::io::Error::other)? + "\n",
        Output::Yaml => format!("---\n{}", serde_yaml_ng::to_string(event).map_err(std::io::Error::other)?),
        Output::Name => format!("{}\n", event.id),
    })
}

fn ended(last: Option<&str>) -> Failure {
    let on = last.map(|id| format!("; go on with: lb events --after {id}")).unwrap_or_default();
    Failure::new(Exit::Unreachable, format!("the daemon tells no more events{on}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::EventKind;

    #[test]
    fn an_event_is_a_line_or_a_document() {
        let event = Event {
            id: "1a-7".to_owned(),
            time: 1_795_673_542,
            kind: EventKind::Health,
            service: Some("web".to_owned()),
            text: "backend 10.0.1.1:80 is down: refused".to_owned(),
        };
        let shown = |output| render(&event, output).unwrap();
        assert_eq!(
            shown(Output::Table),
            "2026-11-26 06:12:22 UTC  health  web: backend 10.0.1.1:80 is down: refused\n"
        );
        let json = shown(Output::Json);
        assert_eq!(json.lines().count(), 1);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        assert!(shown(Output::Yaml).starts_with("---\nid: 1a-7\n"));
        assert_eq!(shown(Output::Name), "1a-7\n");
    }
}
