//! Modules: their text read, their variables put into memory, their kernels lowered.

use std::sync::Arc;

use super::{Device, pool, result};
use crate::ptx::{self, code::Kernel};

/// A module that was loaded.
pub(super) struct Module {
    text: ptx::Module,
    globals: ptx::Globals,
}

impl Device {
    /// Loads a module from its text.
    ///
    /// # Errors
    /// `INVALID_PTX` for a text that is not understood or is for newer cards; `OUT_OF_MEMORY`.
    pub fn load_module(&mut self, text: &str) -> Result<u64, u32> {
        self.sound()?;
        let text = self.parsed(text).map_err(|wrong| {
            eprintln!("card: a module is not understood: {wrong}");
            result::INVALID_PTX
        })?;
        let (major, minor) = self.settings.card.capability;
        if text.target > 10 * major + minor {
            eprintln!("card: a module is for sm_{}, and this card has compute capability {major}.{minor}", text.target);
            return Err(result::INVALID_PTX);
        }
        let globals = self.load_globals(&text)?;
        let handle = self.streams.handle();
        self.modules.insert(handle, Module { text, globals });
        Ok(handle)
    }

    /// A module's text, read; one without text is all that the folder of `CARD_PTX` holds.
    fn parsed(&self, text: &str) -> Result<ptx::Module, String> {
        let Some(folder) = self.settings.ptx.as_ref().filter(|_| text.is_empty()) else { return ptx::parse(text) };
        let said = |error: std::io::Error| format!("{folder}: {error}");
        let mut all = ptx::Module::default();
        for entry in std::fs::read_dir(folder).map_err(said)? {
            let path = entry.map_err(said)?.path();
            if path.extension().is_some_and(|extension| extension == "ptx") {
                all.extend(ptx::parse(&std::fs::read_to_string(path).map_err(said)?)?);
            }
        }
        Ok(all)
    }

    /// Puts a module's variables into memory, one behind the other.
    fn load_globals(&mut self, text: &ptx::Module) -> Result<ptx::Globals, u32> {
        let global = |variable: &&ptx::Variable| variable.space == ptx::Space::Global;
        let variables: Vec<_> = text.variables.iter().filter(global).cloned().collect();
        let (offsets, bytes) = ptx::code::layout(&variables, 0);
        if bytes == 0 {
            return Ok(ptx::Globals::new());
        }
        let at = self.allocate_plain(bytes as u64)?;
        self.report.modules += (bytes as u64).next_multiple_of(pool::PAGE);
        let mut first = vec![0; bytes];
        for (variable, offset) in variables.iter().zip(&offsets) {
            first[*offset..offset + variable.initial.len()].copy_from_slice(&variable.initial);
        }
        self.memory.upload(at, &first).map_err(|fault| self.breaks(&fault))?;
        Ok(variables
            .into_iter()
            .map(|variable| variable.name)
            .zip(offsets.iter().map(|offset| at + *offset as u64))
            .collect())
    }

    /// A kernel of a module.
    ///
    /// # Errors
    /// `NOT_FOUND`, or `INVALID_HANDLE`.
    pub fn function(&mut self, module: u64, name: &str) -> Result<u64, u32> {
        let module = self.modules.get(&module).ok_or(result::INVALID_HANDLE)?;
        let kernel = ptx::lower(&module.text, name, &module.globals).map_err(|wrong| {
            eprintln!("card: kernel {name}: {wrong}");
            result::NOT_FOUND
        })?;
        let handle = self.streams.handle();
        self.kernels.insert(handle, Arc::new(kernel));
        Ok(handle)
    }

    /// The kernel that a handle means.
    pub fn kernel(&self, function: u64) -> Option<Arc<Kernel>> {
        self.kernels.get(&function).cloned()
    }

    /// Unloads a module.
    pub fn unload(&mut self, module: u64) -> Result<(), u32> {
        let module = self.modules.remove(&module).ok_or(result::INVALID_HANDLE)?;
        module.globals.values().min().map_or(Ok(()), |at| self.free(None, *at))
    }
}
