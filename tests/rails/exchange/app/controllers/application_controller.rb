# The pages: sessions, and forms that are protected.
class ApplicationController < ActionController::Base
  protect_from_forgery with: :exception

  private

  # Nobody logs in here: whoever comes is the first member.
  def member
    @member ||= Member.first
  end
end
