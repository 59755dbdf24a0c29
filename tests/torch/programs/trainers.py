"""Hugging Face's Trainer on a model made here at random, Lightning's Trainer and Accelerate, on lepton."""

import sys
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lepton_mpi.torch  # noqa: F401


def same_everywhere(net: nn.Module) -> None:
    """Every rank has the same weights."""
    mine = torch.cat([one.detach().reshape(-1) for one in net.parameters()])
    everybody = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, mine)
    assert all(torch.equal(mine, other) for other in everybody)


def hugging_face(folder: str) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    dist.init_process_group("lepton")  # before TrainingArguments, which takes what there is
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    )
    tokens = torch.arange(64 * 12).reshape(64, 12) % 50
    rows = [{"input_ids": one, "labels": one} for one in tokens]
    arguments = TrainingArguments(
        output_dir=folder, max_steps=12, per_device_train_batch_size=4, learning_rate=5e-3,
        use_cpu=True, report_to=[], save_steps=6, logging_steps=4, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:8])
    assert trainer.accelerator.num_processes == dist.get_world_size()
    result = trainer.train()
    assert trainer.evaluate()["eval_loss"] < result.training_loss < 4.5
    assert dist.get_backend() == "lepton"
    same_everywhere(model)
    dist.destroy_process_group()


def lightning(folder: str) -> None:
    import lightning
    from lightning.pytorch.strategies import DDPStrategy

    class Line(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
            self.log("loss", loss, sync_dist=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    lightning.seed_everything(3, verbose=False)
    x = torch.randn(64, 4)
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
    model = Line()
    trainer = lightning.Trainer(
        accelerator="cpu", devices="auto" if WORLD == 1 else WORLD, max_epochs=8, logger=False,
        strategy=DDPStrategy(process_group_backend="lepton"), default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data)
    assert dist.get_backend() == "lepton" and trainer.world_size == WORLD
    assert trainer.callback_metrics["loss"] < 0.2
    same_everywhere(model)
    dist.destroy_process_group()


WORLD = int(__import__("os").environ.get("WORLD_SIZE", "1"))

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    {"hugging_face": hugging_face, "lightning": lightning}[sys.argv[1]](sys.argv[2])
    print(sys.argv[1], flush=True)
