# GitHub Actions deploys without a stored key: a job of the environment gets a token of GitHub, which this role accepts.

locals {
  with_github     = var.github_repository != null
  github_provider = var.github_oidc_provider_arn != null ? var.github_oidc_provider_arn : one(aws_iam_openid_connect_provider.github[*].arn)
}

resource "aws_iam_openid_connect_provider" "github" {
  count          = local.with_github && var.github_oidc_provider_arn == null ? 1 : 0
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_policy_document" "github_trust" {
  count = local.with_github ? 1 : 0

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [local.github_provider]
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

# A group of Kubernetes' own roles, because AWS' policies for editors contain no custom resources, of which a release
# consists (deployer.yaml binds the group).
resource "aws_eks_access_entry" "github" {
  count             = local.with_github ? 1 : 0
  cluster_name      = aws_eks_cluster.main.name
  principal_arn     = aws_iam_role.github[0].arn
  type              = "STANDARD"
  kubernetes_groups = ["linnet-deployer"]
}
