//! A small file system that can be filled.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A file system in memory; unmounted when dropped.
pub struct Tmpfs {
    dir: TempDir,
}

/// A file that takes all free space; removed when dropped.
pub struct Filler(PathBuf);

impl Tmpfs {
    /// Mounts a file system of a size such as `64m`; prints why and returns `None` if that fails.
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
                crate::support::print_always(&format!(
                    "skipped: no disk can be filled, as mount failed: {problem}"
                ));
                None
            }
            Err(error) => {
                crate::support::print_always(&format!(
                    "skipped: no disk can be filled, as there is no mount: {error}"
                ));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A folder on the file system.
    pub fn tempdir(&self) -> TempDir {
        tempfile::Builder::new().prefix("cluster-").tempdir_in(self.path()).unwrap()
    }

    /// Takes all free space.
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
        // Lazily, in case a process still uses it.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
