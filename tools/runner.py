"""Execute cells in a kernel, inside the sandbox: reads them from stdin, answers a line a cell.

An answer is the list of the cell's outputs. If a cell takes too long or ends the kernel, the answer
says so, and it is the last.
"""

import json
import sys
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

KEPT = 2_000_000  # characters of output that are kept of a cell


class Client(NotebookClient):
    """Keeps the head of long outputs, and notes errors whose traceback was suppressed."""

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("stream", "display_data", "execute_result"):
            size = len(json.dumps(msg["content"]))
            self.printed[cell_index] = self.printed.get(cell_index, 0) + size
            if self.printed[cell_index] > KEPT:
                return None
        return super().process_message(msg, cell, cell_index)


def note_error(cell: Any, cell_index: int, execute_reply: Any) -> None:
    """A reply with an error counts as one, even if the code kept its traceback from being shown."""
    content = execute_reply["content"]
    if any(part.get("source") == "ask_exit" for part in content.get("payload", [])):
        raise DeadKernelError  # it called exit(), and the kernel will follow
    shown = any(output.output_type == "error" for output in cell.outputs)
    if content["status"] == "error" and not shown:
        cell.outputs.append(
            nbformat.v4.new_output(
                "error",
                ename=content["ename"],
                evalue=content["evalue"],
                traceback=content["traceback"],
            )
        )


def answer(content: Any) -> None:
    print(json.dumps(content), flush=True)


def main() -> None:
    request = json.load(sys.stdin)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in request["cells"]]
    client = Client(
        notebook,
        timeout=request["seconds"],
        kernel_name="python3",
        allow_errors=True,
        coalesce_streams=True,
        record_timing=False,
        on_cell_executed=note_error,
    )
    client.printed = {}
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except CellTimeoutError:
                answer(f"it took longer than {request['seconds']} seconds")
                return
            except DeadKernelError:
                answer("it ended the kernel")
                return
            if client.printed.get(index, 0) > KEPT:
                text = (
                    f"[{client.printed[index]:,} characters of output, of which we keep {KEPT:,}]"
                )
                cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=text))
            answer(cell.outputs)


if __name__ == "__main__":
    main()
