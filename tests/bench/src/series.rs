//! One table's measurement: Envoy started several times, all rows side by side each time.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::{
    envoy::{Envoy, Program},
    evidence,
    lane::{Lane, Traffic},
    pods::{Pod, Pods},
    process::divide_cores,
    replay::{self, Replay},
    rounds::{self, Effort, Samples},
    rows::Row,
    stage::Stage,
};

/// What is measured with.
pub(crate) struct Bench<'a> {
    /// Envoy, for the rows that are no pods.
    pub(crate) program: Program,
    /// Its configurations.
    pub(crate) stage: Stage<'a>,
    /// What its rows are sent.
    pub(crate) traffic: Traffic<'a>,
    /// The pods of the mesh's rows, where there are such rows.
    pub(crate) pods: Option<&'a Pods>,
}

impl Bench<'_> {
    /// Measures what a claims challenge adds to a call.
    pub(crate) fn replay(&self) -> Result<Replay> {
        let names: Vec<String> = (0..replay::DESTINATIONS).map(|n| format!("replay-{n}")).collect();
        let configuration = self.stage.replay_configuration(&names)?;
        let envoy = self.program.start(self.stage.directory, &configuration)?;
        divide_cores(&[envoy.process()], &[]);
        Replay::measure(self.stage.directory, &names, &self.traffic, self.stage.injected)
            .with_context(|| format!("Envoy's log ends:\n{}\n", envoy.log()))
    }

    /// Measures these rows side by side, in one Envoy after the other, until `effort.time` after
    /// `began`. Rows of the mesh are among them when this has pods.
    pub(crate) fn starts(
        &self,
        rows: &[Row],
        effort: Effort,
        began: Instant,
    ) -> Result<Vec<Samples>> {
        (1..=effort.starts)
            .map(|number| {
                let left = effort.time.saturating_sub(began.elapsed());
                let starts_left = effort.starts.saturating_sub(number).saturating_add(1);
                let until = Instant::now()
                    .checked_add(left.checked_div(starts_left).unwrap_or_default())
                    .context("the end of time")?;
                self.start(rows, effort, number, until)
            })
            .collect()
    }

    fn start(&self, rows: &[Row], effort: Effort, number: u32, until: Instant) -> Result<Samples> {
        let on_our_envoy: Vec<Row> = on_our_envoy(rows).collect();
        let envoy = if on_our_envoy.is_empty() {
            None
        } else {
            let configuration = self.stage.configuration(&on_our_envoy)?;
            Some(self.program.start(self.stage.directory, &configuration)?)
        };
        let pods = match self.pods {
            Some(pods) if rows.iter().any(|row| row.sidecar().is_some()) => {
                pods.of_start(number)?
            }
            _ => Vec::new(),
        };
        let mut placements = Vec::new();
        if let Some(envoy) = &envoy {
            placements.push(divide_cores(&[envoy.process()], &[]).to_string());
        }
        if !pods.is_empty() {
            let envoys: Vec<_> = pods.iter().map(|(_, pod)| pod.envoy).collect();
            let behind: Vec<_> = pods.iter().map(|(_, pod)| pod.application).collect();
            placements.push(format!("pods: {}", divide_cores(&envoys, &behind)));
        }
        println!("Envoy {number} of {}: {}", effort.starts, placements.join("; "));
        self.side_by_side(rows, envoy.as_ref(), &pods, effort, until).with_context(
            || match &envoy {
                Some(envoy) => format!("Envoy's log ends:\n{}\n", envoy.log()),
                None => "on the pods".to_owned(),
            },
        )
    }

    fn side_by_side(
        &self,
        rows: &[Row],
        envoy: Option<&Envoy>,
        pods: &[(Row, &Pod)],
        effort: Effort,
        until: Instant,
    ) -> Result<Samples> {
        let directory = self.stage.directory;
        let mut lanes = Vec::new();
        if let Some(envoy) = envoy {
            let rows: Vec<Row> = on_our_envoy(rows).collect();
            evidence::strangers_are_refused(directory, self.traffic.path, &rows)?;
            for row in rows {
                lanes.push(Lane::on_our_envoy(row, envoy.process(), directory, self.traffic)?);
            }
        }
        for (row, pod) in pods {
            lanes.push(pod.lane(*row)?);
        }
        let samples = rounds::measure(&mut lanes, effort, until)?;
        let sent: Vec<_> = lanes.iter().map(|lane| (lane.row, lane.sent)).collect();
        if let Some(envoy) = envoy {
            evidence::caches_were_used_as_named(envoy, &sent)?;
        }
        for (row, pod) in pods {
            let sent = sent.iter().find(|(own, _)| own == row).map_or(0, |(_, sent)| *sent);
            evidence::sidecar_used_its_cache(row, pod.statistics, sent)?;
        }
        Ok(samples)
    }
}

fn on_our_envoy(rows: &[Row]) -> impl Iterator<Item = Row> {
    rows.iter().copied().filter(|row| row.sidecar().is_none())
}
