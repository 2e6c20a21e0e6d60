"""As much of a wandb server as saving a report needs; it keeps the reports that it gets."""

import json
from typing import Any

from tests._helpers.wandb_server import WandbServer


class ReportServer(WandbServer):
    """A server with the project team/organs."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[dict[str, Any]] = []
        """The variables of each saved report, with the parsed specification."""

    def answer(self, operation: str, values: dict[str, Any]) -> dict[str, Any]:
        """The data that a GraphQL request gets."""
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "u", "entity": "team", "username": "u", "flags": "{}", "teams": {"edges": []}}}
        if operation == "ProjectInternalId":
            known = (values["entityName"], values["projectName"]) == ("team", "organs")
            return {"project": {"id": "p", "internalId": "17"} if known else None}
        if operation == "GetProjects":
            project = {
                "__typename": "Project", "id": "p", "name": "organs", "entityName": "team",
                "createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None,
            }  # fmt: skip
            pages = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"edges": [{"node": project}], "pageInfo": pages}}
        if operation == "upsertView":
            self.reports.append({**values, "spec": json.loads(values["spec"])})
            kept = {key: values[key] for key in ("type", "name", "displayName", "description", "spec")}
            project = {"id": "p", "name": values["projectName"], "entityName": values["entityName"]}
            view = {**kept, "id": "Vmlldzox", "project": project, "updatedAt": "2026-01-01T00:00:00"}
            return {"upsertView": {"view": view, "inserted": True}}
        return super().answer(operation, values)
