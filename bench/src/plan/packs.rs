//! The number of packs: what it decides, as figures of the same shards with each number.

use super::figure::{Basis, Figure, formula};
use super::outcome::{HostPlan, PacksPlan};
use super::sizing::Hosts;

/// Numbers of packs that are planned side by side, beside that of the plan.
pub(super) const SIDE_BY_SIDE: [u32; 3] = [4, 8, 16];

impl Hosts<'_> {
    /// Figures of this number of packs, hosts by `plan`.
    pub(super) fn packs(&self, plan: Option<&HostPlan>) -> PacksPlan {
        let mut figures = self.moved_by_packs();
        figures.extend(self.held_by_packs());
        let batch = self.cost.batch.largest();
        let time = self.cost.batch.at(batch) * 1e3;
        let how = &self.cost.how;
        figures.push(self.cost.basis.figure(
            "core time",
            time / batch,
            "core-ms",
            formula!("{} core-ms of a batch / {} queries ({how})", time, batch),
        ));
        if let Some(plan) = plan {
            figures.push(Figure { name: "hosts".into(), ..plan.hosts.clone() });
            figures.push(Figure { name: "a million".into(), ..plan.cost_million.clone() });
        }
        PacksPlan { shape: *self.shape, figures }
    }

    /// Bytes of a look-up.
    fn moved_by_packs(&self) -> Vec<Figure> {
        let shape = self.shape;
        let (query, bundle) = (shape.query_bytes as f64, shape.bundle_bytes as f64);
        let (answer, hints) = (shape.answer_bytes as f64, shape.hints_bytes as f64);
        let (packs, shared) = (f64::from(shape.packs), self.day.queries_a_bundle);
        let basis = Basis::of(["shape: query_bytes, bundle_bytes, answer_bytes, hints_bytes"]);
        vec![
            basis.with(["scenario: lookups_per_sync"]).figure(
                "up",
                query + bundle / shared,
                "bytes",
                formula!("{} of a query + {} of a bundle / {} queries", query, bundle, shared),
            ),
            basis.figure(
                "down, one pack",
                (answer + hints) / packs,
                "bytes",
                formula!("({} of the answer + {} of hints) / {} packs", answer, hints, packs),
            ),
            basis.figure(
                "down, all packs",
                answer + hints,
                "bytes",
                formula!("{} of the answer + {} of hints", answer, hints),
            ),
        ]
    }

    /// Records and memory.
    fn held_by_packs(&self) -> Vec<Figure> {
        let shape = self.shape;
        let (matrix, tables) = (shape.matrix_bytes as f64, shape.tables_bytes as f64);
        let (packs, records) = (f64::from(shape.packs), self.scenario.records / self.shards);
        let basis = Basis::of(["shape: matrix_bytes, tables_bytes"]);
        vec![
            Basis::of(["scenario: records, records_per_shard, packs", "shape"]).figure(
                "records a pack",
                records / packs,
                "",
                formula!("{} records a shard / {} packs", records, packs),
            ),
            basis.figure(
                "a shard in memory",
                matrix + tables,
                "bytes",
                formula!("{} MB of matrix + {} MB of tables", matrix / 1e6, tables / 1e6),
            ),
            basis.figure(
                "tables / matrix",
                tables / matrix,
                "",
                formula!("{} MB / {} MB", tables / 1e6, matrix / 1e6),
            ),
        ]
    }
}
