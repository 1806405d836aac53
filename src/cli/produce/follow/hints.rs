//! Hears from the system which files change. These are hints: files are looked at regularly as well,
//! as events may be lost, and network file systems send none.

use std::path::PathBuf;

/// What may have changed.
#[derive(Debug)]
pub(super) enum Hint {
    /// A file has grown.
    File(PathBuf),
    /// Files were created, renamed or deleted, or events were lost.
    Folder,
}

#[cfg(target_os = "linux")]
pub(super) use linux::Hints;

#[cfg(not(target_os = "linux"))]
pub(super) use nowhere::Hints;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        collections::{HashMap, HashSet},
        path::PathBuf,
    };

    use futures::StreamExt as _;
    use inotify::{
        EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches,
    };

    use super::Hint;

    /// Events of some hundred files.
    const BUFFER_BYTES: usize = 64 * 1024;

    pub struct Hints {
        /// `None` if the system has no room for another listener.
        events: Option<EventStream<Vec<u8>>>,
        watches: Option<Watches>,
        folders: HashMap<WatchDescriptor, PathBuf>,
        watched: HashSet<PathBuf>,
    }

    impl Hints {
        pub fn new() -> Self {
            let events = Inotify::init()
                .and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER_BYTES]))
                .ok();
            let watches = events.as_ref().map(EventStream::watches);
            Self { events, watches, folders: HashMap::new(), watched: HashSet::new() }
        }

        /// Listens for changes in a folder, if the system allows it.
        pub fn watch(&mut self, folder: PathBuf) {
            let Some(watches) = &mut self.watches else { return };
            if self.watched.contains(&folder) {
                return;
            }
            let mask = WatchMask::MODIFY
                | WatchMask::CREATE
                | WatchMask::DELETE
                | WatchMask::MOVE
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF
                | WatchMask::ONLYDIR;
            if let Ok(watch) = watches.add(&folder, mask) {
                self.folders.insert(watch, folder.clone());
                self.watched.insert(folder);
            }
        }

        /// The next change; for ever if there is none.
        pub async fn next(&mut self) -> Hint {
            let event = match &mut self.events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            };
            match event {
                Some(Ok(event)) => self.hint(event),
                _ => {
                    self.events = None;
                    Hint::Folder
                }
            }
        }

        fn hint(&mut self, event: EventOwned) -> Hint {
            if event.mask.intersects(EventMask::IGNORED | EventMask::MOVE_SELF) {
                // Another folder may have this path next.
                if let Some(folder) = self.folders.remove(&event.wd) {
                    self.watched.remove(&folder);
                }
                return Hint::Folder;
            }
            let folder = self.folders.get(&event.wd);
            match (event.mask.contains(EventMask::MODIFY), folder, event.name) {
                (true, Some(folder), Some(name)) => Hint::File(folder.join(name)),
                _ => Hint::Folder,
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use std::path::PathBuf;

    use super::Hint;

    pub struct Hints;

    impl Hints {
        pub fn new() -> Self {
            Self
        }

        pub fn watch(&mut self, _: PathBuf) {}

        pub async fn next(&mut self) -> Hint {
            std::future::pending().await
        }
    }
}
