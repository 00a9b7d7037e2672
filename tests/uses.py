"""Reads every third-party name and argument out of the package's source, for ftcourse/drift.py.

``python tests/uses.py`` writes data/uses.json again, after a change of what the package uses. It
holds ``uses``: a library's full name, its arguments ("" is the name itself), and a place of ours;
``stands_for`` and ``passes_on``: what no source of ours can say, and a person wrote below.
"""

import ast
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "data" / "uses.json"
OURS = {"ftcourse", "__future__", "google", *sys.stdlib_module_names}
OPTION = re.compile(r"--(\w+)\.(\w+)=([\w.]*)")  # of JupyterLab: Class.setting, and its value
MODEL = "transformers.PreTrainedModel"
STANDS_FOR = {
    "torch.nn.Module": ["torch.nn.Linear", "peft.tuners.lora.Linear", MODEL, "peft.PeftModel"],
    MODEL: ["transformers.GenerationMixin", "transformers.LlamaForCausalLM", "peft.PeftModel"],
    "torch.optim.Optimizer": ["bitsandbytes.optim.AdamW"],
    "ipywidgets.Widget": ["ipywidgets.Dropdown", "ipywidgets.Checkbox"],
}
"""Classes that stand in annotations, and what is given for them in truth."""
PASSES_ON = {
    r"torch\.nn\.Module\.__call__": ["transformers.LlamaForCausalLM.forward"],
    r"transformers\.PreTrainedModel\.__call__": ["transformers.LlamaForCausalLM.forward"],
    r"transformers\.AutoModel\w+\.from_pretrained": [f"{MODEL}.from_pretrained"],
    r"transformers\.AutoModel\w+\.from_config": [f"{MODEL}._from_config"],
    r"transformers\.\w+\.generate": ["transformers.GenerationConfig"],
    r"matplotlib\.figure\.Figure\.add_axes": [
        "matplotlib.axes.Axes",
        "matplotlib.figure.Figure._process_projection_requirements",
    ],
    r"matplotlib\.figure\.Figure\.savefig": [
        "matplotlib.backend_bases.FigureCanvasBase.print_figure"
    ],
    r"matplotlib\.axes\..*": [
        "matplotlib.lines.Line2D",
        "matplotlib.text.Annotation",
        "matplotlib.patches.Patch",
        "matplotlib.collections.LineCollection",
        "matplotlib.axis.XTick",
        "matplotlib.scale.LogScale",
        "matplotlib.legend.Legend",
    ],
}
"""Functions that hand their ``**kwargs`` on, as a pattern, and what takes them there."""
OBJECTS = {
    "bitsandbytes.nn.Linear8bitLt.state": "bitsandbytes.MatmulLtState",
    "bitsandbytes.nn.Linear8bitLt.weight": "bitsandbytes.nn.Int8Params",
    "bitsandbytes.optim.AdamW.mng": "bitsandbytes.optim.GlobalOptimManager",
    "ipywidgets.Widget.layout": "ipywidgets.Layout",
    "ipywidgets.Widget.style": "ipywidgets.widgets.widget_description.DescriptionStyle",
    "matplotlib.axes.Axes.bbox": "matplotlib.transforms.Bbox",
    "matplotlib.axes.Axes.figure": "matplotlib.figure.Figure",
    "matplotlib.axes.Axes.transData": "matplotlib.transforms.Transform",
    "matplotlib.figure.Figure.figure": "matplotlib.figure.Figure",
    "torch.nn.Linear.weight": "torch.Tensor",
    "torch.nn.Module.base_model": "torch.nn.Module",
    "transformers.Trainer.callback_handler": "transformers.trainer_callback.CallbackHandler",
    "transformers.Trainer.model": MODEL,
    "transformers.Trainer.state": "transformers.TrainerState",
}
"""Attributes, and the class of what they hold."""
TAKES_ANY = {"huggingface_hub.ModelCard.from_template"}  # its caller invents the names
LOOSE = {"torch.nn.Module", "torch.optim.Optimizer", "matplotlib.axes.Axes"}
"""Classes whose objects may be of a class of ours, or carry an attribute of ours."""
SETTABLE = {
    "Application": "traitlets.config.Application",
    "IdentityProvider": "jupyter_server.auth.identity.IdentityProvider",
    "KernelManager": "jupyter_client.KernelManager",
    "LabApp": "jupyterlab.labapp.LabApp",
    "ServerApp": "jupyter_server.serverapp.ServerApp",
}
"""Classes of JupyterLab's options, by the name that stands there."""


class Reader(ast.NodeVisitor):
    """Collects the uses of a file: its imports, and attributes and calls of what it imports.

    ``known`` maps a name to what it stands for. An object of a library's class is the class's
    name and "()": a parameter with that annotation, or what a call of the class returned.
    """

    def __init__(self, ours):
        self.ours, self.known, self.dicts, self.found, self.line = ours, {}, {}, [], 1

    def visit(self, node):
        self.line = getattr(node, "lineno", self.line)
        super().visit(node)

    def note(self, name, argument=""):
        owner, _, attributes = name.partition("().")
        mixed = owner in LOOSE and self.ours & {*attributes.split(".")}
        if name.split(".")[0] not in OURS and not mixed:
            self.found.append((name.replace("()", ""), argument, self.line))

    def dotted(self, node):
        """Return what an expression stands for; empty if it is not a library's."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id, "")
        if isinstance(node, ast.Attribute) and (owner := self.dotted(node.value)):
            name = f"{owner}.{node.attr}"
            kind = OBJECTS.get(name.replace("()", ""))
            return f"{kind}()" if kind else name
        if isinstance(node, ast.Call):
            if ast.unparse(node) == "super()":
                return self.known.get("super()", "")
            made = self.dotted(node.func)
            a_class = made.rpartition(".")[2][:1].isupper() and not made.endswith("()")
            return f"{made}()" if a_class else ""
        return ""

    def objects(self, annotation):
        """Return what a parameter with an annotation is: of ``A | B``, the first that we know."""
        if isinstance(annotation, ast.BinOp):
            return self.objects(annotation.left) or self.objects(annotation.right)
        name = self.dotted(annotation)
        return name and f"{name}()"

    def visit_Import(self, node):
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.split(".")[0]
            self.known[alias.asname or whole] = whole
            self.note(alias.name)

    def visit_ImportFrom(self, node):
        for alias in node.names:
            self.known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            self.note(f"{node.module}.{alias.name}")

    def visit_ClassDef(self, node):
        outer, self.known = self.known, dict(self.known)
        for base in filter(None, map(self.dotted, node.bases)):
            self.known.setdefault("super()", base)
            for method in node.body:  # the Trainer's events
                if isinstance(method, ast.FunctionDef) and method.name.startswith("on_"):
                    self.note(f"{base}.{method.name}")
        self.generic_visit(node)
        self.known = outer

    def visit_FunctionDef(self, node):
        outer, self.known, self.dicts = (self.known, self.dicts), {**self.known}, {**self.dicts}
        given = node.args
        for each in [*given.posonlyargs, *given.args, *given.kwonlyargs]:
            self.known[each.arg] = self.objects(each.annotation)
        self.generic_visit(node)
        self.known, self.dicts = outer

    def visit_Assign(self, node):
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.known[target.id] = self.dotted(node.value)
                if isinstance(node.value, ast.Dict):
                    self.dicts[target.id] = node.value

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if owner := self.dotted(node.value):
            self.note(f"{owner}.{node.attr}")

    def visit_Call(self, node):
        self.generic_visit(node)
        name = self.dotted(node.func)
        if name.endswith("()"):  # an object that is called
            name += ".__call__"
        for keyword in node.keywords if name and name not in TAKES_ANY else ():
            for argument in [keyword.arg] if keyword.arg else self.keys(keyword.value):
                self.note(name, argument)

    def keys(self, value):
        """Return the arguments in ``**value``, as far as they are written as a dict."""
        if isinstance(value, ast.Name):
            value = self.dicts.get(value.id)
        if isinstance(value, ast.IfExp):
            return self.keys(value.body) + self.keys(value.orelse)
        if isinstance(value, ast.BinOp):
            return self.keys(value.left) + self.keys(value.right)
        keys = value.keys if isinstance(value, ast.Dict) else []
        return [key.value for key in keys if isinstance(key, ast.Constant)]

    def visit_Constant(self, node):
        if isinstance(node.value, str) and (option := OPTION.match(node.value)):
            self.note(SETTABLE[option[1]], option[2])
            if re.fullmatch(r"[a-z_.]+\.[A-Z]\w+", option[3]):  # a class, by its full name
                self.note(option[3])


def own_names(tree):
    """Return the names that our source itself gives to attributes of objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self.register_buffer":
            yield node.args[0].value


def without_lines(table):
    """Return a table without its lines, which move with every edit; the files stay."""
    uses = {
        name: {argument: place.partition(", line")[0] for argument, place in arguments.items()}
        for name, arguments in table["uses"].items()
    }
    return table | {"uses": uses}


def read_uses(folder):
    """Return the table of ftcourse/drift.py for a folder of source."""
    trees = {}
    for file in sorted(folder.rglob("*.py")):
        trees[file] = ast.parse(file.read_text(encoding="utf-8"))
    ours = {name for tree in trees.values() for name in own_names(tree)}
    table = {}
    for file, tree in trees.items():
        reader = Reader(ours)
        reader.visit(tree)
        place = file.relative_to(folder.parent).as_posix()
        for name, argument, line in reader.found:
            table.setdefault(name, {}).setdefault(argument, f"{place}, line {line}")
    uses = {name: dict(sorted(arguments.items())) for name, arguments in sorted(table.items())}
    return {"stands_for": STANDS_FOR, "passes_on": PASSES_ON, "uses": uses}


if __name__ == "__main__":
    text = json.dumps(read_uses(ROOT / "ftcourse"), indent=1)
    TABLE.write_text(text + "\n", encoding="utf-8")
