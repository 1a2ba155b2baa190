"""Backends that are arrow's but for one breach of the contract, by the test of the kit that must notice."""

BREACHES: list[tuple[str, str]] = [
    ("test_has_a_name_and_the_version_of_the_contract", "contract_version = 99"),
    ("test_has_a_name_and_the_version_of_the_contract", "name = ''"),
    (
        "test_round_trip",
        "def write_blob(self, key, array): return super().write_blob(key, array.astype('float64'))",
    ),
    (
        "test_round_trip_of_a_large_blob",
        "def read_blob(self, key, blob, start, out): super().read_blob(key, blob, start, out[: 1 << 15])",
    ),
    (
        "test_put_of_a_view_that_is_not_contiguous",
        "def put(self, key, array): super().put(key, array.ravel(order='K').reshape(array.shape))",
    ),
    (
        "test_put_copies",
        """
        def put(self, key, array): super().put(key, array); self.kept = array
        def get(self, key, out): out[...] = self.kept
        """,
    ),
    (
        "test_put_leaves_the_array_as_it_is",
        "def put(self, key, array): super().put(key, array); array.sort()",
    ),
    (
        "test_put_again_replaces_the_whole_blob",
        "def put(self, key, array): key in self.keys() or super().put(key, array)",
    ),
    (
        "test_put_of_what_is_no_number",
        "def put(self, key, array): super().put(key, array if array.dtype.kind == 'f' else np.zeros(3))",
    ),
    ("test_delete", "def remove_blob(self, key): self.find_blob(key)"),
    ("test_clear", "def clear(self): pass"),
    (
        "test_a_key_that_was_never_put",
        """
        def find_blob(self, key):
            if key not in self.keys(): raise FileNotFoundError(key)
            return super().find_blob(key)
        """,
    ),
    (
        "test_a_key_of_a_wrong_length",
        "def put(self, key, array): super().put(key or 'empty', array)",
    ),
    (
        "test_odd_keys_stay_apart_and_inside_the_location",
        "def write_blob(self, key, array): return super().write_blob(key.lower(), array)",
    ),
    (
        "test_odd_keys_stay_apart_and_inside_the_location",
        "def put(self, key, array): super().put(key, array); (self.directory.parent / 'escaped').touch()",
    ),
    ("test_reopened", "def close(self): self.clear()"),
    (
        "test_reopened",
        """
        def close(self):
            for file in self.directory.iterdir(): file.write_bytes(file.read_bytes().replace(b'f4', b'i4'))
        """,
    ),
    (
        "test_reopened",
        """
        gone = ()
        def remove_blob(self, key): self.gone = (*self.gone, key)
        def keys(self): return (key for key in super().keys() if key not in self.gone)
        """,
    ),
    ("test_flush_at_any_time", "def flush(self): self._unflushed.pop()"),
    ("test_rows", "def read_blob(self, key, blob, start, out): super().read_blob(key, blob, 0, out)"),
    (
        "test_rows",
        """
        def read_blob(self, key, blob, start, out):
            super().read_blob(key, blob, max(0, start - (start > 5)), out)
        """,
    ),
    (
        "test_rows_of_a_large_blob",
        "def read_blob(self, key, blob, start, out): super().read_blob(key, blob, start % 4096, out)",
    ),
    (
        "test_rows_into_a_part_of_a_buffer",
        """
        def read_blob(self, key, blob, start, out):
            super().read_blob(key, blob, start, out)
            out.base[0] = out[0]
        """,
    ),
    (
        "test_a_buffer_that_begins_anywhere",
        """
        def read_blob(self, key, blob, start, out):
            assert out.ctypes.data % 16 == 0
            super().read_blob(key, blob, start, out)
        """,
    ),
    (
        "test_rows_out_of_range",
        """
        def get_rows(self, key, start, out):
            rows = self.blob(key).num_rows
            start = min(max(start, 0), rows)
            super().get_rows(key, start, out[: rows - start])
        """,
    ),
    (
        "test_buffer_of_a_wrong_dtype",
        """
        def get_rows(self, key, start, out):
            rows = np.empty(out.shape, self.blob(key).dtype)
            super().get_rows(key, start, rows)
            with np.errstate(all="ignore"): out[...] = rows
        """,
    ),
    (
        "test_buffer_of_a_wrong_shape",
        """
        def get_rows(self, key, start, out):
            rows = np.empty(self.blob(key).shape, self.blob(key).dtype)
            super().get_rows(key, 0, rows)
            out.reshape(-1)[:] = rows.reshape(-1)[: out.size]
        """,
    ),
    (
        "test_get_into_a_buffer_of_a_wrong_size",
        "def get(self, key, out): self.get_rows(key, 0, out[: self.blob(key).num_rows])",
    ),
    (
        "test_buffer_that_is_not_contiguous_or_read_only",
        """
        def get(self, key, out):
            copy = np.empty(out.shape, out.dtype)
            super().get(key, copy)
            out.flags.writeable = True
            out[...] = copy
        """,
    ),
    (
        "test_a_full_disk_is_told_of_and_leaves_the_old_blob",
        """
        def write_blob(self, key, array):
            with open(self.directory / "journal", "ab") as journal: journal.write(array)
            return super().write_blob(key, array)
        """,
    ),
    (
        "test_use_is_exact",
        "used_bytes = property(lambda self: sum(file.stat().st_size for file in self.directory.iterdir()))",
    ),
    (
        "test_a_blob_beyond_the_capacity_is_refused",
        "def __init__(self, options): super().__init__(TierOptions(location=options.location))",
    ),
    (
        "test_a_blob_beyond_the_capacity_is_refused",
        """
        def put(self, key, array):
            if key in self.keys(): self.delete(key)
            super().put(key, array)
        """,
    ),
    (
        "test_a_blob_that_is_replaced_counts_once",
        """
        def put(self, key, array):
            if self.used_bytes + array.nbytes > self.options.capacity_bytes: raise TierFullError
            super().put(key, array)
        """,
    ),
    (
        "test_a_deleted_blob_gives_back_its_room",
        "def delete(self, key): self.remove_blob(key); self._blobs.pop(key, None)",
    ),
    (
        "test_a_reopened_tier_counts_what_is_there",
        "def __init__(self, options): super().__init__(options); self._sizes = {}",
    ),
    ("test_room_is_known_or_without_limit", "def room_bytes(self): return 0"),
    (
        "test_threads_on_different_keys",
        """
        def write_blob(self, key, array):
            self.staged = array
            time.sleep(0.001)
            return super().write_blob(key, self.staged)
        """,
    ),
    (
        "test_threads_read_one_key",
        """
        def read_blob(self, key, blob, start, out):
            self.buffer = out
            time.sleep(0.001)
            super().read_blob(key, blob, start, self.buffer)
        """,
    ),
    (
        "test_readers_beside_writers_of_other_keys",
        """
        def read_blob(self, key, blob, start, out):
            self.path = self.directory / self._path(key).name
            time.sleep(0.001)
            self.read_file(self.path, blob, start, out)
        """,
    ),
    (
        "test_readers_beside_deletes_of_other_keys",
        """
        busy = False
        def remove_blob(self, key):
            self.busy = True
            time.sleep(0.002)
            super().remove_blob(key)
            self.busy = False
        def read_blob(self, key, blob, start, out):
            super().read_blob(key, blob, start, out)
            if self.busy: raise TierError("busy")
        """,
    ),
    (
        "test_a_writer_that_is_killed_leaves_the_old_blob_or_the_new_one",
        """
        def write_blob(self, key, array):
            torn = array.copy()
            torn.reshape(-1)[array.size // 2 :] = 0
            super().write_blob(key, torn)
            time.sleep(0.02)
            return super().write_blob(key, array)
        """,
    ),
    (
        "test_a_writer_that_is_killed_leaves_the_old_blob_or_the_new_one",
        """
        def write_blob(self, key, array):
            (self.directory / "key-part.arrow").touch()
            time.sleep(0.02)
            blob = super().write_blob(key, array)
            (self.directory / "key-part.arrow").unlink()
            return blob
        """,
    ),
    (
        "test_no_second_copy_of_a_large_blob_is_made",
        "def write_blob(self, key, array): return super().write_blob(key, array.copy())",
    ),
    (
        "test_no_second_copy_of_a_large_blob_is_made",
        """
        def read_blob(self, key, blob, start, out):
            whole = np.empty(blob.shape, blob.dtype)
            super().read_blob(key, blob, 0, whole)
            out[...] = whole[start : start + len(out)]
        """,
    ),
    (
        "test_no_second_copy_of_a_large_blob_is_made",
        """
        def read_blob(self, key, blob, start, out):
            super().read_blob(key, blob, start, out)
            pa.array(out.reshape(-1)).take(pa.array([0])) if out.nbytes < 1000 else pa.py_buffer(out.tobytes())
        """,
    ),
    (
        "test_any_sequence_of_operations_does_what_a_dictionary_does",
        """
        def read_blob(self, key, blob, start, out):
            cache = vars(self).setdefault("cache", {})
            if (key, start, out.nbytes) not in cache:
                super().read_blob(key, blob, start, out)
                cache[key, start, out.nbytes] = out.copy()
            out[...] = cache[key, start, out.nbytes].view(out.dtype).reshape(out.shape)
        """,
    ),
    (
        "test_training_over_the_tier_gives_the_losses_of_training_in_memory",
        "'''As it is: but it is not registered.'''",
    ),
]
