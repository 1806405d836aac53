//! A small file system of a run's own, that can be filled.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A file system in memory; unmounted when it is dropped.
pub struct Tmpfs {
    dir: TempDir,
}

/// What takes all that is left of a file system; removed when it is dropped.
pub struct Filler(PathBuf);

impl Tmpfs {
    /// One of a size such as `64m`; `None`, after saying so, where that cannot be done.
    pub fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("trunkline-faults-disk-").tempdir().unwrap();
        let options = format!("size={size},mode=755");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { dir }),
            Ok(output) => {
                let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                crate::support::say(&format!(
                    "skipped: no disk can be full, as mount says: {problem}"
                ));
                None
            }
            Err(error) => {
                crate::support::say(&format!(
                    "skipped: no disk can be full, as there is no mount: {error}"
                ));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A folder on it.
    pub fn tempdir(&self) -> TempDir {
        tempfile::Builder::new().prefix("cluster-").tempdir_in(self.path()).unwrap()
    }

    /// Takes all that is left.
    pub fn fill(&self) -> Filler {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for piece in [vec![0; 1024 * 1024], vec![0; 4096]] {
            while file.write_all(&piece).is_ok() {}
        }
        Filler(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // By then all who used it have ended; if not, it goes with the last of them.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
