//! What the program itself has to say: mistakes of ours that it meets with, which should be never.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// Messages and how often each was seen, so that a mistake met by every packet makes one line.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<BTreeMap<String, u64>>>);

impl Log for Messages {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *messages.entry(record.args().to_string()).or_default() += 1;
    }

    fn flush(&self) {
        // Whoever is interested takes the messages.
    }
}

/// The reading end of the program's log. It is bounded: what does not fit the kernel's buffer is lost.
pub(super) struct ProgramLog {
    reader: EbpfLogger<Messages>,
    messages: Messages,
}

impl ProgramLog {
    /// The log of a loaded program.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        let messages = Messages::default();
        Ok(Self { reader: EbpfLogger::init_with_logger(ebpf, messages.clone())?, messages })
    }

    /// Each message since the last call, and how often it came.
    pub(super) fn take(&mut self) -> BTreeMap<String, u64> {
        self.reader.flush();
        std::mem::take(&mut *self.messages.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
