//! The text that Prometheus reads.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Metric, Registry},
};

/// All metrics of a broker.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Registry,
}

/// What a layer measures with.
pub trait Instruments {
    /// Gives each instrument its name and its description.
    fn register(&self, metrics: &mut Metrics);
}

impl<T: Instruments> Instruments for Arc<T> {
    fn register(&self, metrics: &mut Metrics) {
        (**self).register(metrics);
    }
}

/// Values that are found out when somebody asks for them.
pub trait Collection: Send + Sync + 'static {
    /// Writes the values as they are now.
    fn write(&self, samples: &mut Samples<'_>) -> fmt::Result;
}

/// Where values are written that are found out when somebody asks for them.
pub struct Samples<'e>(DescriptorEncoder<'e>);

/// A collection, as the registry takes it.
struct Collected<C>(C);

impl Metrics {
    /// The content type of the text.
    pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

    /// Adds instruments.
    pub fn register(&mut self, instruments: &(impl Instruments + ?Sized)) {
        instruments.register(self);
    }

    /// Adds values that are found out when somebody asks for them.
    pub fn collect(&mut self, collection: impl Collection) {
        self.registry.register_collector(Box::new(Collected(collection)));
    }

    /// Adds an instrument. The text ends its description with a full stop, and the name of a counter
    /// with `_total`.
    pub(super) fn add(&mut self, name: &str, description: &str, instrument: impl Metric) {
        self.registry.register(name, description, instrument);
    }

    /// All values as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Samples<'_> {
    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &str, description: &str, value: f64) -> fmt::Result {
        self.gauges(name, description, [(NO_LABELS, value)])
    }

    /// As [`Self::gauge`], for each of several label sets.
    pub fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        description: &str,
        series: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.family(name, description, series.into_iter().map(|(l, v)| (l, ConstGauge::new(v))))
    }

    /// A value that only grows. The text ends its name with `_total`.
    pub fn counter(&mut self, name: &str, description: &str, value: u64) -> fmt::Result {
        self.counters(name, description, [(NO_LABELS, value)])
    }

    /// As [`Self::counter`], for a number of seconds.
    pub fn seconds_counter(&mut self, name: &str, description: &str, seconds: f64) -> fmt::Result {
        self.family(name, description, [(NO_LABELS, ConstCounter::new(seconds))].into_iter())
    }

    /// As [`Self::counter`], for each of several label sets.
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        description: &str,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.family(name, description, series.into_iter().map(|(l, v)| (l, ConstCounter::new(v))))
    }

    fn family<L: EncodeLabelSet, M: EncodeMetric>(
        &mut self,
        name: &str,
        description: &str,
        series: impl Iterator<Item = (L, M)>,
    ) -> fmt::Result {
        let mut series = series.peekable();
        // A family without series is left out.
        let Some((_, first)) = series.peek() else { return Ok(()) };
        let kind = first.metric_type();
        // The registry ends the descriptions of instruments in the same way.
        let description = format!("{description}.");
        let mut family = self.0.encode_descriptor(name, &description, None, kind)?;
        for (labels, value) in series {
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

const NO_LABELS: [(&str, &str); 0] = [];

impl<C: Collection> Collector for Collected<C> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.write(&mut Samples(encoder))
    }
}

impl<C> fmt::Debug for Collected<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Collected")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Some;

    impl Collection for Some {
        fn write(&self, samples: &mut Samples<'_>) -> fmt::Result {
            samples.gauge("broker_temperature_celsius", "How warm it is", -1.5)?;
            samples.counters(
                "broker_visits",
                "Who came",
                [([("who", "a\"b\\c\nd")], 3), ([("who", "e")], 0)],
            )?;
            samples.gauges("broker_empty", "Nothing", Vec::<([(&str, &str); 1], f64)>::new())
        }
    }

    #[test]
    fn collected_values_are_written_as_prometheus_reads_them() {
        let mut metrics = Metrics::default();
        metrics.collect(Some);
        let expected = "# HELP broker_temperature_celsius How warm it is.\n\
             # TYPE broker_temperature_celsius gauge\n\
             broker_temperature_celsius -1.5\n\
             # HELP broker_visits_total Who came.\n\
             # TYPE broker_visits_total counter\n\
             broker_visits_total{who=\"a\\\"b\\\\c\\nd\"} 3\n\
             broker_visits_total{who=\"e\"} 0\n";
        assert_eq!(metrics.text().unwrap(), expected);
    }
}
