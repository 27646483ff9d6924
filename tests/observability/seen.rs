//! What a scrape and a log show of something that ran.

use std::{cell::RefCell, collections::BTreeMap, fmt, future::Future, sync::Once};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::runtime::Builder;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// What was seen of what ran, when all of it is gone.
pub struct Seen<T> {
    pub value: T,
    pub metrics: Metrics,
    pub log: Log,
}

/// Runs in virtual time, in a runtime that is dropped before the last look.
pub fn watched<F: Future>(run: impl FnOnce(Scraper) -> F) -> Seen<F::Output> {
    watched_by(
        Builder::new_current_thread()
            .enable_all()
            .start_paused(true),
        run,
    )
}

/// The same in real time, for real sockets.
pub fn watched_in_real_time<F: Future>(run: impl FnOnce(Scraper) -> F) -> Seen<F::Output> {
    watched_by(Builder::new_current_thread().enable_all(), run)
}

fn watched_by<F: Future>(runtime: &mut Builder, run: impl FnOnce(Scraper) -> F) -> Seen<F::Output> {
    listen();
    LOG.take();
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("heartbeat_".into()), &[0.001, 0.1, 1.0])
        .unwrap()
        .build_recorder();
    let scraper = Scraper(recorder.handle());
    let recording = metrics::set_default_local_recorder(&recorder);
    heartbeat_tokio::describe_metrics();
    let runtime = runtime.build().unwrap();
    let value = runtime.block_on(run(scraper.clone()));
    drop(runtime);
    drop(recording);
    Seen {
        value,
        metrics: scraper.scrape(),
        log: LOG.take(),
    }
}

// ---- metrics ------------------------------------------------------------

#[derive(Clone)]
pub struct Scraper(PrometheusHandle);

impl Scraper {
    pub fn scrape(&self) -> Metrics {
        Metrics::parse(&self.0.render())
    }
}

/// A scrape, as Prometheus reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// By name and labels.
    pub samples: BTreeMap<String, f64>,
    /// Each metric's kind.
    pub kinds: BTreeMap<String, String>,
    /// Each metric's help text.
    pub helps: BTreeMap<String, String>,
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (name, rest) = match line.strip_prefix("# ") {
                Some(comment) => comment.split_once(' ').unwrap(),
                None => ("", line),
            };
            match name {
                "" => {
                    let (series, value) = rest.rsplit_once(' ').unwrap();
                    metrics
                        .samples
                        .insert(series.into(), value.parse().unwrap());
                }
                "TYPE" => insert(&mut metrics.kinds, rest),
                "HELP" => insert(&mut metrics.helps, rest),
                _ => panic!("{line}"),
            }
        }
        metrics
    }

    /// One series, as in `name{label="value"}`; zero if it isn't there.
    pub fn get(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or(0.0)
    }

    /// The connections in a state.
    pub fn connections(&self, state: &str) -> f64 {
        self.get(&format!("heartbeat_connections{{state=\"{state}\"}}"))
    }

    /// All series of a metric together.
    pub fn sum(&self, name: &str) -> f64 {
        let of = |series: &str| series.split('{').next() == Some(name);
        self.samples
            .iter()
            .filter_map(|(series, value)| of(series).then_some(value))
            .sum()
    }

    /// Connections that have ended, however.
    pub fn ends(&self) -> f64 {
        self.sum("heartbeat_closed_total")
            + self.sum("heartbeat_deaths_total")
            + self.sum("heartbeat_dropped_total")
    }
}

fn insert(map: &mut BTreeMap<String, String>, line: &str) {
    let (name, value) = line.split_once(' ').unwrap();
    map.insert(name.into(), value.into());
}

// ---- log ----------------------------------------------------------------

/// What the library logged on this thread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Spans in the order in which they were made.
    pub spans: Vec<Span>,
    pub events: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub name: &'static str,
    pub fields: Fields,
    /// The name of the one around it.
    pub within: Option<&'static str>,
    pub closed: bool,
    /// The span was entered.
    pub entered: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub level: Level,
    pub message: String,
    pub fields: Fields,
    /// Which of `spans`.
    pub span: Option<usize>,
}

pub type Fields = BTreeMap<&'static str, String>;

impl Log {
    /// The events with this message.
    pub fn of(&self, message: &str) -> Vec<&Line> {
        let these = self.events.iter();
        these.filter(|line| line.message == message).collect()
    }
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

/// What was logged so far, in the middle of a run.
pub fn logged() -> Log {
    LOG.with_borrow(Log::clone)
}

/// One subscriber for the whole process, which keeps apart by thread what its
/// tests do: what callsites remember of subscribers isn't theirs to change.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Capture);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

struct Capture;

/// A span's place in the log.
struct Place(usize);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut seen = Span {
            name: attributes.metadata().name(),
            fields: Fields::new(),
            within: span.parent().map(|parent| parent.name()),
            closed: false,
            entered: false,
        };
        attributes.record(&mut Visitor(&mut seen.fields));
        let place = LOG.with_borrow_mut(|log| {
            log.spans.push(seen);
            log.spans.len() - 1
        });
        span.extensions_mut().insert(Place(place));
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        change(id, &context, |span| {
            record.record(&mut Visitor(&mut span.fields))
        });
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        change(id, &context, |span| span.entered = true);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        change(&id, &context, |span| span.closed = true);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != "heartbeat_tokio" {
            return;
        }
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        let span = context.event_span(event);
        LOG.with_borrow_mut(|log| {
            log.events.push(Line {
                level: *event.metadata().level(),
                message: fields.remove("message").unwrap(),
                fields,
                span: span.map(|span| span.extensions().get::<Place>().unwrap().0),
            });
        });
    }
}

fn change<S>(id: &Id, context: &Context<'_, S>, change: impl FnOnce(&mut Span))
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let span = context.span(id).unwrap();
    let place = span.extensions().get::<Place>().unwrap().0;
    LOG.with_borrow_mut(|log| log.spans.get_mut(place).map(change));
}

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
