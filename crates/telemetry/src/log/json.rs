//! Formats each event as one flat JSON object.
//!
//! A line has `timestamp`, `level`, `target` and `message`, the event's fields beside them, and the current request's
//! `request_id` and `trace_id`. Fields of spans are not added: recording them would cost every request, whether or not it
//! is logged.

use std::{cell::RefCell, fmt, io::Write as _};

use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::MakeWriter,
    layer::{Context, Layer},
};

use crate::{context, error_chain::error_chain};

/// Initial capacity of each thread's line buffer.
const LINE_BYTES: usize = 1024;

pub(crate) struct JsonLayer<W> {
    writer: W,
}

impl<W> JsonLayer<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { writer }
    }
}

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(LINE_BYTES));
        }
        LINE.with(|line| {
            // The buffer is already borrowed if the `Debug` implementation of a field logs an event itself.
            if let Ok(mut line) = line.try_borrow_mut() {
                self.write(event, &mut line);
            } else {
                self.write(event, &mut Vec::with_capacity(LINE_BYTES));
            }
        });
    }
}

impl<W: for<'a> MakeWriter<'a>> JsonLayer<W> {
    fn write(&self, event: &Event<'_>, line: &mut Vec<u8>) {
        line.clear();
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let mut object = Object { line, target: None, has_request_id: false };
        object.line.extend_from_slice(b"{\"timestamp\":");
        object.value(&Value::String(now));
        object.text("level", event.metadata().level().as_str());
        event.record(&mut object);
        let target = object.target.take();
        object.text("target", target.as_deref().unwrap_or(event.metadata().target()));
        if !object.has_request_id {
            context::with_current(|request| {
                object.text("request_id", &request.request_id);
                if let Some(trace_id) = request.trace_id() {
                    object.text("trace_id", trace_id);
                }
            });
        }
        object.line.extend_from_slice(b"}\n");
        // The writer counts lines that it cannot write.
        drop(self.writer.make_writer().write_all(line));
    }
}

struct Object<'a> {
    line: &'a mut Vec<u8>,
    /// The target of a record from the `log` crate. The event itself has the target of the bridge between the crates.
    target: Option<String>,
    /// Whether the event has a `request_id` field.
    has_request_id: bool,
}

impl Object<'_> {
    fn value(&mut self, value: &Value) {
        // Writing to memory cannot fail, and a `Value` is always valid JSON.
        drop(serde_json::to_writer(&mut *self.line, value));
    }

    fn key(&mut self, name: &str) {
        self.line.push(b',');
        drop(serde_json::to_writer(&mut *self.line, name));
        self.line.push(b':');
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        drop(serde_json::to_writer(&mut *self.line, value));
    }

    fn field(&mut self, field: &Field, value: impl Into<Value>) {
        if field.name().starts_with("log.") {
            return;
        }
        self.key(field.name());
        self.value(&value.into());
    }
}

impl Visit for Object<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.target = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            name => {
                self.has_request_id |= name == "request_id";
                self.text(name, value);
            }
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &error_chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !field.name().starts_with("log.") {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::capture_logs;

    #[test]
    fn a_line_is_one_flat_object_with_escaped_text() {
        let logs = capture_logs();
        let error = std::io::Error::other("no\nroom");
        tracing::warn!(
            count = 3_u32,
            ratio = 0.5,
            nan = f64::NAN,
            ok = true,
            error = &error as &dyn std::error::Error,
            "a \"{}\"",
            "a\u{1}b"
        );
        let lines = logs.lines();
        let line = lines.first().unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "a \"a\u{1}b\"");
        assert_eq!(line["count"], 3);
        assert_eq!(line["ratio"], 0.5);
        assert!(line["nan"].is_null());
        assert_eq!(line["ok"], true);
        assert_eq!(line["error"], "no\nroom");
        assert_eq!(line["target"], "linnet_telemetry::log::json::tests");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(line.get("request_id").is_none());
    }
}
