//! Server-sent events (HTML Living Standard, section 9.2), as far as the daemon sends them.

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes};

use crate::view::Event;

/// What happens, as it happens.
#[derive(Debug)]
pub struct Events<B = hyper::body::Incoming> {
    body: B,
    /// What has come of the line that has not ended yet.
    line: Vec<u8>,
    /// What has come beyond it.
    rest: Bytes,
}

impl<B: Body<Data = Bytes> + Unpin> Events<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, line: Vec::new(), rest: Bytes::new() }
    }

    /// The next event; `None` when the daemon has ended, or cannot be understood any more.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let line = self.line().await?;
            // All that an event has is its data; the other lines are for browsers, and signs of life.
            if let Some(data) = line.strip_prefix(b"data: ".as_slice()) {
                return serde_json::from_slice(data).ok();
            }
        }
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                self.line.extend_from_slice(&self.rest.split_to(end + 1)[..end]);
                return Some(std::mem::take(&mut self.line));
            }
            self.line.extend_from_slice(&self.rest);
            self.rest = self.body.frame().await?.ok()?.into_data().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    #[tokio::test]
    async fn events_come_whole_however_they_are_cut() {
        let text = b": \n\nevent: drop\nid: 1-2\ndata: {\"id\":\"1-2\",\"time\":3,\"kind\":\"drop\",\"text\":\"a\"}\n\n\
            data: {\"id\":\"1-3\",\"time\":4,\"kind\":\"health\",\"service\":\"web\",\"text\":\"b\"}\n\ndata: ?\n\n";
        for size in [1, 2, 7, 64, text.len()] {
            let pieces: Vec<_> = text.chunks(size).map(Bytes::from_static).collect();
            let frames =
                pieces.into_iter().map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)));
            let mut events = Events::new(StreamBody::new(stream::iter(frames)));
            let told =
                [events.next().await.unwrap(), events.next().await.unwrap()].map(|event| event.to_string());
            assert_eq!(told, ["drop    a", "health  web: b"]);
            assert_eq!(events.next().await, None);
        }
    }
}
