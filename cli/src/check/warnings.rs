//! What is in order in the filter's configuration and still may not be meant.
//!
//! Applications and this filter may read one path differently: a router that does not tell
//! `/Admin` from `/admin`, or `/admin/` from `/admin`, serves under a rule that was written for
//! others. So each rule's own path, spelt in those ways, is put to the filter's decision, and
//! where a rule answers that lets more people pass, that is said.

use std::rc::Rc;

use policy::{
    config::{Allow, Config, InboundConfig, Mode, Rule},
    effect::Effect,
    inbound::Inbound,
    request::RequestHead,
    time::UnixTime,
};

use crate::{find::Configuration, tree::Tree};

/// Path and message of each warning; `exact_router` says that the application reads paths as this
/// filter does.
pub(super) fn of(
    config: &Config,
    configuration: &Configuration,
    exact_router: bool,
) -> Vec<(String, String)> {
    let Config::Inbound(config) = config else { return Vec::new() };
    let mut warnings = Vec::new();
    if config.mode == Mode::Observe {
        warnings.push(("mode".to_owned(), "`observe`: nothing is refused".to_owned()));
    }
    for (index, rule) in config.rules.iter().enumerate() {
        if rule.mode == Mode::Observe && config.mode == Mode::Enforce {
            let message = format!("`observe`: nothing is refused under rule `{}`", rule.name);
            warnings.push((format!("rules[{index}].mode"), message));
        }
    }
    if !exact_router {
        warnings.extend(spellings(configuration));
    }
    warnings
}

/// What a good configuration means, in a line.
pub(super) fn meaning(config: &Config) -> String {
    let rules = |count: usize| if count == 1 { "1 rule".into() } else { format!("{count} rules") };
    match config {
        Config::Inbound(config) => format!("inbound, {}", rules(config.rules.len())),
        Config::Outbound(config) => format!("outbound, {}", rules(config.rules.len())),
    }
}

/// Rules whose path, spelt otherwise, falls under a later rule that lets more people pass.
fn spellings(configuration: &Configuration) -> Vec<(String, String)> {
    let mut warnings = Vec::new();
    let Some(Tree::List(written)) =
        configuration.tree().and_then(|tree| tree.get("rules")).map(|rules| &rules.value)
    else {
        return warnings;
    };
    let Ok(Config::Inbound(config)) = Config::read(configuration.text.as_bytes()) else {
        return warnings;
    };
    let samples: Vec<Sample> = written.iter().map(|rule| Sample::of(rule)).collect();
    let mut filter = Probe::new(*config);
    for (index, sample) in samples.iter().enumerate() {
        let Some(pattern) = &sample.path else { continue };
        for (what, other, cure) in spelt_otherwise(pattern) {
            let taken = filter.taken_by(index, pattern, &other, &samples);
            if let Some(taker) = taken {
                let message = format!(
                    "{what}, as `{}`, a request falls under the broader rule `{taker}`: {cure}, \
                     where the application takes both for the same",
                    sampled(&other)
                );
                warnings.push((format!("rules[{index}].match.path"), message));
            }
        }
    }
    warnings
}

/// Other spellings of a path pattern, each with what is other about it and what to do.
fn spelt_otherwise(pattern: &str) -> Vec<(&'static str, String, &'static str)> {
    const RULE: &str = "add a rule for that path";
    const CASE: &str = "set `path_case: insensitive`";
    let mut others = Vec::new();
    match pattern.strip_suffix('/') {
        Some("") => {}
        Some(without) => others.push(("without the last slash", without.to_owned(), RULE)),
        None => match pattern.strip_suffix("/{**}") {
            Some("") => {}
            Some(without) => others.push(("without anything below it", without.to_owned(), RULE)),
            None => others.push(("with a slash at the end", format!("{pattern}/"), RULE)),
        },
    }
    if let Some(letter) = pattern.find(|letter: char| letter.is_ascii_alphabetic()) {
        let flipped = pattern.char_indices().map(|(at, c)| match (at == letter, c) {
            (true, c) if c.is_ascii_lowercase() => c.to_ascii_uppercase(),
            (true, c) => c.to_ascii_lowercase(),
            (false, c) => c,
        });
        others.push(("in another case", flipped.collect(), CASE));
    }
    others
}

/// A path that fits the pattern: segments that nobody writes into a rule.
fn sampled(pattern: &str) -> String {
    pattern.replace("{**}", "any").replace("{*}", "any")
}

/// What a rule says of the requests that it is for.
struct Sample {
    path: Option<String>,
    methods: Vec<String>,
    hosts: Vec<String>,
    preflight: bool,
}

impl Sample {
    fn of(rule: &crate::tree::Node) -> Self {
        let matches = rule.get("match");
        let texts = |name: &str| match matches.and_then(|it| it.get(name)).map(|it| &it.value) {
            Some(Tree::List(texts)) => {
                texts.iter().filter_map(|text| text.text().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        let text = |name: &str| matches.and_then(|it| it.get(name)?.text());
        Self {
            path: text("path").map(str::to_owned),
            methods: texts("methods"),
            hosts: texts("hosts").iter().map(|host: &String| host.replace("*.", "any.")).collect(),
            preflight: text("cors_preflight") == Some("true"),
        }
    }
}

/// The filter's own decision, asked which rule a request falls under.
struct Probe {
    filter: Inbound,
    config: Rc<InboundConfig>,
}

impl Probe {
    fn new(config: InboundConfig) -> Self {
        let filter = Inbound::new(config);
        let config = filter.config().clone();
        Self { filter, config }
    }

    /// The rule that takes a request which rule `index` was written for, when its path is spelt
    /// otherwise, where that rule lets somebody pass whom this one does not.
    fn taken_by(
        &mut self,
        index: usize,
        pattern: &str,
        other: &str,
        samples: &[Sample],
    ) -> Option<Rc<str>> {
        let config = self.config.clone();
        let rule = config.rules.get(index)?;
        let sample = samples.get(index)?;
        let mentioned = |of: fn(&Sample) -> &Vec<String>, own: &[String], any: &str| {
            let all = samples.iter().flat_map(of).cloned().chain([any.to_owned()]);
            if own.is_empty() { all.collect() } else { own.to_vec() }
        };
        let methods = mentioned(|sample| &sample.methods, &sample.methods, "GET");
        let hosts = mentioned(|sample| &sample.hosts, &sample.hosts, "any.invalid");
        for method in &methods {
            for host in &hosts {
                let preflight = sample.preflight;
                let own = self.rule_of(method, &sampled(pattern), host, preflight);
                if own.as_deref() != Some(&*rule.name) {
                    continue;
                }
                let taker = self.rule_of(method, &sampled(other), host, preflight);
                let taker = config.rules.iter().find(|it| Some(&*it.name) == taker.as_deref());
                if let Some(taker) = taker.filter(|taker| broader(taker, rule)) {
                    return Some(taker.name.clone());
                }
            }
        }
        None
    }

    fn rule_of(
        &mut self,
        method: &str,
        path: &str,
        host: &str,
        preflight: bool,
    ) -> Option<Rc<str>> {
        let mut lines = vec![(":method", method), (":path", path), (":authority", host)];
        if preflight {
            lines.extend([
                ("origin", "https://any.invalid"),
                ("access-control-request-method", "GET"),
            ]);
        }
        let lines = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = RequestHead::read(lines, &self.config.own_headers);
        let effect = self.filter.on_request(&head, false, UnixTime(0), &|_, _, _| false);
        match effect {
            Effect::Continue(_, decision) | Effect::Reply(_, decision) => decision.rule,
            Effect::Wait => None,
        }
    }
}

/// Whether one rule lets somebody pass whom another does not.
fn broader(rule: &Rule, other: &Rule) -> bool {
    if rule.name == other.name {
        return false;
    }
    match (&rule.allow, &other.allow) {
        (_, Allow::Anyone) => false,
        (Allow::Anyone, Allow::AnyOf(_)) => true,
        (Allow::AnyOf(alternatives), Allow::AnyOf(others)) => {
            (rule.mode == Mode::Observe && other.mode == Mode::Enforce)
                || !alternatives.iter().all(|alternative| others.contains(alternative))
        }
    }
}
