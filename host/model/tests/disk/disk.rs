//! What a disk may hold when the power goes: everything that was synced, and any part of what was not.
//!
//! Of each sector it holds one of the contents it had since its last sync. Names of files come and go in order. A
//! failed sync makes nothing durable, and no later one makes up for it: the system believes those pages to be written.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{fs, io::Write};

use crate::chance::Chance;
use crate::log::{Entry, Failed, Kind};

#[derive(Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Size(usize),
}

/// Changes since a sync.
#[derive(Clone, Default)]
struct Layer {
    changes: Vec<Change>,
    /// Synced later than something whose sync failed.
    certain: bool,
}

#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    /// The first of them rest on what a failed sync left in doubt; the last is what nobody synced yet.
    layers: Vec<Layer>,
}

impl File {
    fn change(&mut self, change: Change) {
        match self.layers.last_mut() {
            Some(last) if !last.certain => last.changes.push(change),
            _ => self.layers.push(Layer { changes: vec![change], certain: false }),
        }
    }

    fn sync(&mut self) {
        if let Some(last) = self.layers.last_mut() {
            last.certain = true;
        }
        if self.layers.iter().all(|layer| layer.certain) {
            for layer in std::mem::take(&mut self.layers) {
                layer.changes.iter().for_each(|change| whole(&mut self.durable, change));
            }
        }
    }

    /// What was not durable never will be, unless it is written again.
    fn sync_failed(&mut self) {
        if self.layers.last().is_some_and(|last| !last.certain) {
            self.layers.push(Layer { changes: Vec::new(), certain: true });
        }
    }

    fn after(&self, cut: &mut Cut<'_>) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for layer in &self.layers {
            if layer.certain {
                layer.changes.iter().for_each(|change| whole(&mut bytes, change));
            } else {
                cut.part(&mut bytes, &layer.changes);
            }
        }
        bytes
    }
}

fn whole(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => {
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(data);
        }
        Change::Size(size) => bytes.resize(*size, 0),
    }
}

/// How one power cut treats what was not synced.
struct Cut<'a> {
    chance: &'a mut Chance,
    /// What is written whole or not at all, in bytes.
    sector: usize,
    manner: Manner,
}

#[derive(Clone, Copy)]
enum Manner {
    /// Nothing of it is there.
    Nothing,
    /// All of it is.
    Everything,
    /// All up to some moment.
    Until,
    /// Of each sector, some content it had; the newest so often of a hundred.
    Sectors(u64),
}

impl Cut<'_> {
    fn part(&mut self, bytes: &mut Vec<u8>, changes: &[Change]) {
        match self.manner {
            Manner::Nothing => {}
            Manner::Everything => changes.iter().for_each(|change| whole(bytes, change)),
            Manner::Until => {
                let end = self.chance.index(changes.len() + 1);
                changes[..end].iter().for_each(|change| whole(bytes, change));
            }
            Manner::Sectors(newest) => self.sectors(bytes, changes, newest),
        }
    }

    fn sectors(&mut self, bytes: &mut Vec<u8>, changes: &[Change], newest: u64) {
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            match change {
                Change::Write { offset, data } => {
                    for sector in offset / self.sector..(offset + data.len()).div_ceil(self.sector) {
                        touched.entry(sector).or_default().push(index);
                    }
                }
                // Of sizes, which are rarely set, all up to some moment.
                Change::Size(size) => {
                    if self.chance.percent(newest) {
                        bytes.resize(*size, 0);
                    }
                }
            }
        }
        for (sector, indices) in touched {
            let kept = if self.chance.percent(newest) { indices.len() } else { self.chance.index(indices.len()) };
            let (begin, end) = (sector * self.sector, (sector + 1) * self.sector);
            for index in &indices[..kept] {
                if let Change::Write { offset, data } = &changes[*index] {
                    let (first, last) = ((*offset).max(begin), (offset + data.len()).min(end));
                    let data = data[first - offset..last - offset].to_vec();
                    whole(bytes, &Change::Write { offset: first, data });
                }
            }
        }
    }
}

/// A disk that follows a log.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// As the process sees them.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Names that came and went since the folder was synced.
    renamed: Vec<(String, Option<usize>)>,
}

impl Disk {
    pub(crate) fn follow(&mut self, entry: &Entry) {
        let name = entry.name.clone();
        match entry.kind {
            Kind::Create => {
                self.names.insert(name.clone(), self.files.len());
                self.renamed.push((name, Some(self.files.len())));
                self.files.push(File::default());
            }
            Kind::Unlink => {
                self.names.remove(&name);
                self.renamed.push((name, None));
            }
            Kind::SyncFolder => {
                for (name, file) in std::mem::take(&mut self.renamed) {
                    rename(&mut self.durable_names, name, file);
                }
            }
            Kind::Write => {
                let offset = usize::try_from(entry.offset).unwrap();
                self.file(&name).change(Change::Write { offset, data: entry.data.clone() });
            }
            Kind::Truncate => self.file(&name).change(Change::Size(usize::try_from(entry.offset).unwrap())),
            Kind::Sync => self.file(&name).sync(),
            Kind::Failed(Failed::Sync) => self.file(&name).sync_failed(),
            Kind::Failed(Failed::Other) | Kind::Said => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        &mut self.files[self.names[name]]
    }

    /// What is in the folder while the power is there, but for the index of the log, which is memory.
    pub(crate) fn now(&self) -> BTreeMap<String, Vec<u8>> {
        let of = |file: usize| {
            let mut bytes = self.files[file].durable.clone();
            let changes = self.files[file].layers.iter().flat_map(|layer| &layer.changes);
            changes.for_each(|change| whole(&mut bytes, change));
            bytes
        };
        let names = self.names.iter().filter(|(name, _)| !name.ends_with("-shm"));
        names.map(|(name, file)| (name.clone(), of(*file))).collect()
    }

    /// Puts what a power cut may leave into an empty folder.
    pub(crate) fn cut(&self, chance: &mut Chance, folder: &Path) {
        let sector = if chance.percent(50) { 512 } else { 4_096 };
        let manner = match chance.below(8) {
            0 => Manner::Nothing,
            1 => Manner::Everything,
            2 => Manner::Until,
            _ => Manner::Sectors([5, 50, 50, 95][chance.index(4)]),
        };
        let mut cut = Cut { chance, sector, manner };
        let mut names = self.durable_names.clone();
        let renamed = match manner {
            Manner::Nothing => 0,
            Manner::Everything => self.renamed.len(),
            _ => cut.chance.index(self.renamed.len() + 1),
        };
        for (name, file) in &self.renamed[..renamed] {
            rename(&mut names, name.clone(), *file);
        }
        for (name, file) in names {
            // The index of the log lives in memory: what a crash leaves of it is anything.
            let bytes = if name.ends_with("-shm") {
                match cut.chance.below(3) {
                    0 => continue,
                    1 => vec![0; 32_768],
                    _ => (0..4_096).flat_map(|_| cut.chance.number().to_le_bytes()).collect(),
                }
            } else {
                self.files[file].after(&mut cut)
            };
            let mut open = fs::OpenOptions::new();
            let mut file = open.write(true).create_new(true).mode(0o600).open(folder.join(name)).unwrap();
            file.write_all(&bytes).unwrap();
        }
    }
}

fn rename(names: &mut BTreeMap<String, usize>, name: String, file: Option<usize>) {
    match file {
        Some(file) => names.insert(name, file),
        None => names.remove(&name),
    };
}
