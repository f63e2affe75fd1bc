# GitHub Actions deploys without a stored key: a job of the environment gets a token of GitHub, which this role accepts.

locals {
  with_github = var.github_repository != null
}

resource "aws_iam_openid_connect_provider" "github" {
  count          = local.with_github ? 1 : 0
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_policy_document" "github_trust" {
  count = local.with_github ? 1 : 0

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.github[0].arn]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }

    # The environment's reviewers and branch rules decide which job that is.
    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:sub"
      values   = ["repo:${var.github_repository}:environment:${var.github_environment}"]
    }
  }
}

# `aws eks update-kubeconfig`. What the role may do in the cluster is the access entry's matter.
data "aws_iam_policy_document" "github" {
  count = local.with_github ? 1 : 0

  statement {
    actions   = ["eks:DescribeCluster"]
    resources = [aws_eks_cluster.main.arn]
  }
}

resource "aws_iam_role" "github" {
  count                = local.with_github ? 1 : 0
  name                 = "${var.name}-github-deploy"
  assume_role_policy   = data.aws_iam_policy_document.github_trust[0].json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "github" {
  count  = local.with_github ? 1 : 0
  name   = "describe-cluster"
  role   = aws_iam_role.github[0].id
  policy = data.aws_iam_policy_document.github[0].json
}

resource "aws_eks_access_entry" "github" {
  count         = local.with_github ? 1 : 0
  cluster_name  = aws_eks_cluster.main.name
  principal_arn = aws_iam_role.github[0].arn
  type          = "STANDARD"
}

# It edits Linnet's namespace, and no other.
resource "aws_eks_access_policy_association" "github" {
  count         = local.with_github ? 1 : 0
  cluster_name  = aws_eks_cluster.main.name
  principal_arn = aws_eks_access_entry.github[0].principal_arn
  policy_arn    = "arn:${local.partition}:eks::aws:cluster-access-policy/AmazonEKSEditPolicy"

  access_scope {
    type       = "namespace"
    namespaces = [var.kubernetes_namespace]
  }
}
